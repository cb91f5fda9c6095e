"""Rollouts: shadow versions, canaries and the comparison of their arms."""
