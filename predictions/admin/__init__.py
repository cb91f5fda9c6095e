"""Admin of the prediction log, outcomes, replays, drift reviews and rollouts."""

from predictions.admin import log, outcomes, replays, reviews, rollouts

__all__ = ["log", "outcomes", "replays", "reviews", "rollouts"]
