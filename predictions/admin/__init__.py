"""The prediction log, its outcomes, its replays, and what is tried on real requests, in the admin."""

from predictions.admin import log, outcomes, replays, rollouts

__all__ = ["log", "outcomes", "replays", "rollouts"]
