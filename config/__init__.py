"""Composition only: settings, routes, Celery, the one error handler."""
