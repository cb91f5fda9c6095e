"""The catalogue and its interactions in the admin."""

from recommender.admin import interactions, movies

__all__ = ["interactions", "movies"]
