"""Refusals of the recommender, typed; `config.errors` maps them to status codes."""

from __future__ import annotations

from training.errors import Conflict, NotFound


class UnknownMovie(NotFound):
    code = "unknown_movie"

    def __init__(self, movie_id: int | str) -> None:
        super().__init__(f"no movie of the catalogue has the id {str(movie_id)[:20]}")


class MovieExists(Conflict):
    code = "movie_exists"

    def __init__(self, movie_id: int) -> None:
        super().__init__(f"the catalogue has a movie {movie_id} already: PUT changes it, and readmits it")
