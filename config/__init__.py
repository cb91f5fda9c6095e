"""Composition: settings, routes, Celery, system checks, first start."""
