"""Catalogues of a few movies, for tests of an index's arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import strategies as st

from recommender.index import catalogue_snapshot
from recommender.index.build import build
from recommender.index.catalogue_snapshot import Catalogue, Interaction
from recommender.index.config import Field, Settings
from recommender.index.engine import IndexEngine
from recommender.index.estimator import MovieIndex
from recommender.index.query import Filters, Movie

FIELDS = (
    Field("title", 0.3, stop_words=("en", "es"), suffices=False),
    Field("description", 1.0, sublinear_tf=True, stop_words=("en", "es")),
    Field("genres", 0.5, suffices=False),
    Field("keywords", 0.7),
    Field("together"),
)
SETTINGS = Settings(FIELDS, top_k=3)
"""Few precomputed neighbours, so that filters soon need more."""

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)

TEXTS = ("wizard school magic", "wizard duel", "shark island", "shark attack island", "robot", "robot city")
LABELS = ("Drama", "Comedy", "Science Fiction")


def interaction(user: int, movie_id: int, weight: float = 1.0, day: int = 0) -> Interaction:
    return Interaction(movie_id, user, weight, BEGIN + timedelta(days=day))


def catalogue_of(movies: Iterable[Movie], events: Iterable[Interaction] = ()) -> Catalogue:
    """Returns the catalogue of movies and interactions in any order, by way of a snapshot's file."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "catalogue.parquet")
        catalogue_snapshot.write(
            path,
            sorted(movies, key=lambda movie: movie.id),
            sorted(events, key=lambda event: event.movie_id),
        )
        return catalogue_snapshot.read(path)


def engine(
    movies: Iterable[Movie], events: Iterable[Interaction] = (), settings: Settings = SETTINGS
) -> IndexEngine:
    return IndexEngine.from_bytes(build(catalogue_of(movies, events), settings).index)


def fitted(movies: Iterable[Movie], settings: Settings = SETTINGS, together: float = 0.0) -> MovieIndex:
    return MovieIndex(settings, together=together).fit(catalogue_of(movies))


@st.composite
def catalogues(draw: st.DrawFn) -> list[Movie]:
    """Draws up to twelve movies of few words, so that many are equal and some have no words."""
    count = draw(st.integers(2, 12))
    words = st.lists(st.sampled_from(["wizard", "magic", "shark", "island", "robot", "city"]), max_size=4)
    return [
        Movie(
            id=number * 7 % 13,
            title=draw(st.sampled_from(("Magic", "The City", "Untitled"))),
            description=" ".join(draw(words)),
            genres=tuple(draw(st.lists(st.sampled_from(LABELS), max_size=2))),
            keywords=tuple(draw(st.lists(st.sampled_from(("robot", "space opera")), max_size=1))),
            year=draw(st.sampled_from((None, 1990, 2000, 2010))),
            language=draw(st.sampled_from(("en", "es"))),
            popularity=draw(st.sampled_from((0.0, 1.0, 5.0))),
        )
        for number in range(count)
    ]


@st.composite
def filters(draw: st.DrawFn) -> Filters:
    return Filters(
        genres=tuple(draw(st.lists(st.sampled_from(("drama", "COMEDY", "Western")), max_size=2))),
        year_from=draw(st.sampled_from((None, 1990, 2000))),
        year_to=draw(st.sampled_from((None, 2000))),
        language=draw(st.sampled_from((None, "en"))),
        exclude=frozenset(draw(st.lists(st.integers(0, 13), max_size=3))),
    )


def passes(movie: Movie, conditions: Filters) -> bool:
    """Evaluates the conditions of `filtering` on one movie, without arrays."""
    year = movie.year
    return (
        movie.id not in conditions.exclude
        and (conditions.language is None or movie.language == conditions.language)
        and (conditions.year_from is None or (year is not None and year >= conditions.year_from))
        and (conditions.year_to is None or (year is not None and year <= conditions.year_to))
        and (
            not conditions.genres
            or bool(
                {each.casefold() for each in movie.genres} & {each.casefold() for each in conditions.genres}
            )
        )
    )
