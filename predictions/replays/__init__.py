"""Replays: a logged window scored with another version."""
