"""The prediction log, its outcomes, replays and drift reviews, and what is tried on real requests."""

from predictions.admin import log, outcomes, replays, reviews, rollouts

__all__ = ["log", "outcomes", "replays", "reviews", "rollouts"]
