"""Views of predictions, outcomes, quality, drift, replays and rollouts."""
