"""What an index is asked, and what it answers. No Django, no numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Basis = Literal["similarity", "genres"]
Emptiness = Literal["", "nothing_to_compare", "no_neighbour", "filtered_out"]

MOST = 100
"""The most recommendations one answer holds."""


@dataclass(frozen=True, slots=True)
class Movie:
    """One entry of the catalogue as the index sees it.

    language : ISO 639-1, empty where it is not known. popularity : any scale, larger is more popular.
    """

    id: int
    title: str
    description: str = ""
    genres: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    year: int | None = None
    language: str = ""
    popularity: float = 0.0


@dataclass(frozen=True, slots=True)
class Seed:
    """What an answer starts from: a movie of the index, one that the index does not hold, or free text.

    weight : how much it counts; negative for what is disliked.
    movie_id, movie, text : exactly one of them is given.
    left_out : whether a movie is itself never recommended beside it.
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
    """What may be recommended: every condition that is given has to hold.

    genres : any of them, in upper or lower case. year_from, year_to : both inclusive; a movie without a year
    passes neither. language : as `Movie.language`. exclude : ids of movies.
    """

    genres: tuple[str, ...] = ()
    year_from: int | None = None
    year_to: int | None = None
    language: str | None = None
    exclude: frozenset[int] = frozenset()

    @property
    def narrow(self) -> bool:
        """Whether any condition is given."""
        return bool(
            self.genres
            or self.year_from is not None
            or self.year_to is not None
            or self.language is not None
            or self.exclude
        )


@dataclass(frozen=True, slots=True)
class Question:
    """top_n : at most so many, 1 to `MOST`.

    diversity : d of maximal marginal relevance (Carbonell and Goldstein 1998), 0 to 1: the next one chosen is
    the largest (1 - d) * score - d * (largest cosine with those already chosen).
    explain : without, `Recommended.because` is empty.
    """

    seeds: tuple[Seed, ...]
    top_n: int = 5
    filters: Filters = Filters()
    diversity: float = 0.0
    explain: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.top_n <= MOST:
            raise ValueError(f"top_n is 1 to {MOST}, not {self.top_n}")
        if not 0.0 <= self.diversity <= 1.0:
            raise ValueError(f"diversity is 0 to 1, not {self.diversity}")


@dataclass(frozen=True, slots=True)
class Reason:
    """A shared term of `field` and its share of the score; negative where a disliked seed has it too."""

    field: str
    term: str
    share: float


@dataclass(frozen=True, slots=True)
class Recommended:
    """score : cosine with the seed, or with the weighted sum of the seeds; above 0, rounded to 6 digits.

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
    """items : best first. basis : ``similarity``, or ``genres`` where no seed that is liked has a
    text to compare.

    reason : why `items` is empty: ``nothing_to_compare`` (the seeds have no term the index knows),
    ``no_neighbour`` (no movie shares one), ``filtered_out`` (those that do are excluded); else empty.
    """

    items: tuple[Recommended, ...]
    basis: Basis = "similarity"
    reason: Emptiness = ""
