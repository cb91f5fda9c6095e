"""Refusals of the recommender, typed; `web.errors` maps them to status codes."""

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
        super().__init__(f"no movie of the catalogue is called {title[:80]!r}, or nearly so")


class AmbiguousTitle(Conflict):
    """Several movies go by that title, or nearly."""

    code = "ambiguous_title"

    def __init__(self, title: str, candidates: Iterable[tuple[int, str, int | None]]) -> None:
        """candidates : id, title and year of each."""
        found = [{"movie_id": each[0], "title": each[1], "year": each[2]} for each in candidates]
        super().__init__(
            f"{len(found)} movies go by {title[:80]!r} or nearly: ask by the movie_id of one", details=found
        )


class MovieExists(Conflict):
    code = "movie_exists"

    def __init__(self, movie_id: int) -> None:
        super().__init__(f"the catalogue has a movie {movie_id} already: PUT changes it, and readmits it")
