"""Admin pages of the catalogue and its interactions."""

from recommender.admin import interactions, movies

__all__ = ["interactions", "movies"]
