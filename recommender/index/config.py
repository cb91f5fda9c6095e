"""Settings of an index: its fields with their weights, and the parameters of a build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from recommender.index.stop_words import STOP_WORDS

Kind = Literal["words", "labels", "users"]

KINDS: Final[Mapping[str, Kind]] = {
    "title": "words",
    "description": "words",
    "genres": "labels",
    "keywords": "labels",
    "together": "users",
}
"""Field -> kind of its terms. The terms of ``together`` are the numbers of the users who liked the movie."""


FEW: Final = 50


@dataclass(frozen=True)
class Field:
    """One block of a movie's row.

    Parameters
    ----------
    name : one of `KINDS`.
    weight : weight of the L2-normalised block in the row; a shared term counts by its square.
    min_df : least number of movies with a term; rarer terms are left out.
    max_df : largest share of movies with a term; more frequent terms are left out, except terms of `FEW`
        movies or fewer: in a small catalogue a share is not informative.
    sublinear_tf : whether a term counts 1 + ln(occurrences) instead of its occurrences.
    stop_words : languages whose stop words are left out. One language applies to all texts; of several, the
        language of the text applies (see `tokenizer.language_of`).
    suffices : whether terms of this field alone allow a comparison. A movie without any such term is compared
        by its genres.
    """

    name: str
    weight: float = 1.0
    min_df: int = 1
    max_df: float = 1.0
    sublinear_tf: bool = False
    stop_words: tuple[str, ...] = ()
    suffices: bool = True

    def __post_init__(self) -> None:
        if self.name not in KINDS:
            raise ValueError(f"there is no field {self.name!r}: {', '.join(KINDS)}")
        if self.weight < 0:
            raise ValueError(f"{self.name}: the weight is {self.weight}, and must not be negative")
        unknown = [each for each in self.stop_words if each not in STOP_WORDS]
        if unknown:
            raise ValueError(f"{self.name}: no stop words for {', '.join(unknown)}")

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    def most(self, movies: int) -> int:
        """Returns the largest number of movies with a term, in a catalogue of `movies` movies."""
        return max(FEW, int(self.max_df * movies))


@dataclass(frozen=True)
class Together:
    """Settings of the co-occurrence field ``together``.

    Parameters
    ----------
    weights : weights to try for the field, compared by nDCG on held-out interactions (see `build`).
    minimum_users : with fewer users whose last interaction can be held out, no weight is tried and the weight
        is 0.
    minimum_interactions : the same limit for positive interactions.
    per_user, per_movie : number of the latest opinions that count, of a user and of a movie; they keep the
        cost of the field linear in the interactions, not quadratic.
    """

    weights: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 2.0)
    minimum_users: int = 50
    minimum_interactions: int = 500
    per_user: int = 200
    per_movie: int = 500


@dataclass(frozen=True)
class Judging:
    """Settings of the evaluation.

    Parameters
    ----------
    users : most users whose last interactions are held out.
    history : number of a user's latest interactions before the target that form the question.
    seeds : most movies whose lists enter the intra-list diversity.
    calls : number of timed answers.
    seed : seed of every random choice among users and movies.
    """

    users: int = 2_000
    history: int = 20
    seeds: int = 1_000
    calls: int = 200
    seed: int = 1


@dataclass(frozen=True)
class Settings:
    """Everything that a build depends on besides the catalogue.

    top_k : number of precomputed neighbours per movie.
    """

    fields: tuple[Field, ...]
    top_k: int = 100
    together: Together = Together()
    judging: Judging = Judging()

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        if len(set(names)) < len(names) or not names:
            raise ValueError(f"each field is declared once, and one at least: {', '.join(names) or 'none'}")

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Settings:
        """Returns the settings that `dataclasses.asdict` and JSON wrote."""
        return msgspec.convert(given, cls)


PLAIN: Final = Settings((Field("description", stop_words=("en",)),))
"""The descriptions alone, as ``TfidfVectorizer(stop_words="english")`` vectorises them."""
