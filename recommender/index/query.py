"""Questions to an index, and their answers. No Django, no numpy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

Basis = Literal["similarity", "genres"]
Emptiness = Literal["", "nothing_to_compare", "no_neighbour", "filtered_out"]

LARGEST_TOP = 100
"""Largest number of recommendations in one answer."""


@dataclass(frozen=True, slots=True)
class Movie:
    """One movie of the catalogue, with the fields that the index uses.

    language : ISO 639-1, "" if unknown. popularity : any scale, larger is more popular.
    """

    id: int
    title: str
    description: str = ""
    genres: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    year: int | None = None
    language: str = ""
    popularity: float = 0.0

    @classmethod
    def of(cls, values: Iterable[Any]) -> Movie:
        """Returns the movie with the values of `MOVIE_FIELDS`; lists become tuples."""
        plain: list[Any] = [tuple(value) if isinstance(value, list) else value for value in values]
        return cls(*plain)


MOVIE_FIELDS: Final = tuple(field.name for field in fields(Movie))


@dataclass(frozen=True, slots=True)
class Seed:
    """A start of a question: a movie of the index, a movie that the index does not hold, or free text.

    weight : weight of the seed; negative for a disliked movie.
    movie_id, movie, text : exactly one of them is set.
    left_out : whether the seed's own movie is excluded from the answer.
    """

    weight: float = 1.0
    movie_id: int | None = None
    movie: Movie | None = None
    text: str | None = None
    left_out: bool = True

    def __post_init__(self) -> None:
        given = sum(each is not None for each in (self.movie_id, self.movie, self.text))
        if given != 1:
            raise ValueError(f"a seed is exactly one of movie_id, movie and text, not {given} of them")


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions on recommended movies; a movie must meet every condition that is set.

    genres : at least one of them, ignoring case. year_from, year_to : inclusive; a movie without a year meets
    neither. language : as `Movie.language`. exclude : ids of movies.
    """

    genres: tuple[str, ...] = ()
    year_from: int | None = None
    year_to: int | None = None
    language: str | None = None
    exclude: frozenset[int] = frozenset()

    @property
    def narrow(self) -> bool:
        """Whether any condition is set."""
        return self != _NO_FILTERS


_NO_FILTERS: Final = Filters()


@dataclass(frozen=True, slots=True)
class Question:
    """One question to the index. top_n : largest number of movies, 1 to `LARGEST_TOP`.

    diversity : d of maximal marginal relevance (Carbonell and Goldstein 1998), 0 to 1: the next movie is the
    one with the largest (1 - d) * score - d * (largest cosine with the movies already chosen). explain :
    whether `Recommended.because` is filled.
    """

    seeds: tuple[Seed, ...]
    top_n: int = 5
    filters: Filters = _NO_FILTERS
    diversity: float = 0.0
    explain: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.top_n <= LARGEST_TOP:
            raise ValueError(f"top_n is 1 to {LARGEST_TOP}, not {self.top_n}")
        if not 0.0 <= self.diversity <= 1.0:
            raise ValueError(f"diversity is 0 to 1, not {self.diversity}")


@dataclass(frozen=True, slots=True)
class Reason:
    """A shared term of `field` and its share of the score; negative for a term of a disliked seed."""

    field: str
    term: str
    share: float


@dataclass(frozen=True, slots=True)
class Recommended:
    """One recommended movie. score : cosine with the seed, or with the weighted sum of the seeds; above 0,
    rounded to 6 digits.

    because : every shared term, by share, descending; the shares, of 6 digits, add up to 1.
    """

    movie_id: int
    title: str
    year: int | None
    genres: tuple[str, ...]
    score: float
    because: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a question. items : best first. basis : ``similarity``, or ``genres`` if no liked seed
    has comparable terms besides genres.

    reason : why `items` is empty: ``nothing_to_compare`` (the index knows no term of the seeds),
    ``no_neighbour`` (no movie shares a term), ``filtered_out`` (filters exclude all that do); else "".
    """

    items: tuple[Recommended, ...]
    basis: Basis = "similarity"
    reason: Emptiness = ""
