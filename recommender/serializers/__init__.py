"""Serializers of movies, interactions and recommendations."""
