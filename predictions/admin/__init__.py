"""The prediction log, and what is tried on real requests, in the admin."""

from predictions.admin import log, rollouts

__all__ = ["log", "rollouts"]
