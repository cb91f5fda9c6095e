"""Replays: another version's predictions for a logged window."""
