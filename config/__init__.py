"""Composition only: settings, routes, Celery, the one error handler."""

from config.celery import app as celery_app

__all__ = ["celery_app"]
