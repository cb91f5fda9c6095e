"""Serializers of predictions, drift reviews and rollouts."""
