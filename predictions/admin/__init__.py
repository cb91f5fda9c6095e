"""Admin of the prediction log, batches, outcomes, replays, drift reviews and rollouts."""

from predictions.admin import batches, log, outcomes, replays, reviews, rollouts

__all__ = ["batches", "log", "outcomes", "replays", "reviews", "rollouts"]
