"""Inference, prediction log, outcomes, quality, drift, rollouts, replays; imports `training`, not `web`."""
