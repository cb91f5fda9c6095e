"""Typed errors of the recommender; `web.errors` maps them to status codes."""

from __future__ import annotations

from collections.abc import Iterable

from core.errors import Conflict, NotFound


class UnknownMovie(NotFound):
    code = "unknown_movie"

    def __init__(self, movie_id: int | str) -> None:
        super().__init__(f"no movie of the catalogue has the id {str(movie_id)[:20]}")


class UnknownTitle(NotFound):
    code = "unknown_movie"

    def __init__(self, title: str) -> None:
        super().__init__(f"no movie of the catalogue has the title {title[:80]!r} or a similar one")


class AmbiguousTitle(Conflict):
    """Several movies have this title or a similar one."""

    code = "ambiguous_title"

    def __init__(self, title: str, candidates: Iterable[tuple[int, str, int | None]]) -> None:
        """candidates : (id, title, year) of each movie."""
        movies = [{"movie_id": each[0], "title": each[1], "year": each[2]} for each in candidates]
        super().__init__(
            f"{len(movies)} movies have the title {title[:80]!r} or a similar one: send the movie_id of one",
            details=movies,
        )


class MovieExists(Conflict):
    code = "movie_exists"

    def __init__(self, movie_id: int) -> None:
        super().__init__(f"the catalogue already has movie {movie_id}: use PUT to change and readmit it")
