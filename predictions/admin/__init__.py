"""Admin of the prediction log, exports, outcomes, replays, drift reviews and rollouts."""

from predictions.admin import exports, log, outcomes, replays, reviews, rollouts

__all__ = ["exports", "log", "outcomes", "replays", "reviews", "rollouts"]
