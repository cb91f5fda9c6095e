"""Admin of the prediction log, batches, exports, outcomes, replays, drift reviews and rollouts."""

from predictions.admin import batches, exports, log, outcomes, replays, reviews, rollouts

__all__ = ["batches", "exports", "log", "outcomes", "replays", "reviews", "rollouts"]
