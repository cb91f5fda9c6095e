"""The prediction log in the admin."""

from predictions.admin import log

__all__ = ["log"]
