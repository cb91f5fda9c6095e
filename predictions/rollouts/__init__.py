"""Rollouts: shadow versions and canaries, and how their arms compare."""
