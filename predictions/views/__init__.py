"""The HTTP routes of predictions, outcomes, quality, drift, replays and rollouts."""
