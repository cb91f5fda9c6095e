"""What an index is made of: its fields with their weights, and the numbers a build goes by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from recommender.index.stop_words import STOP_WORDS

Kind = Literal["words", "labels", "users"]

KINDS: Final[Mapping[str, Kind]] = {
    "title": "words",
    "description": "words",
    "genres": "labels",
    "keywords": "labels",
    "together": "users",
}
"""Field -> what its terms are. Those of ``together`` are the users who liked the movie, by code number."""


FEW: Final = 50


@dataclass(frozen=True)
class Field:
    """One block of a movie's row.

    Parameters
    ----------
    name : one of `KINDS`.
    weight : of the L2-normalised block in the row; a shared term counts by its square.
    min_df : terms of fewer movies are left out.
    max_df : terms of a larger share of them are left out, but none of `FEW` movies or fewer: in a small
        catalogue a share says little.
    sublinear_tf : count a term 1 + ln(times) instead of its times.
    stop_words : languages whose stop words are left out. Of one: always that; of several: the one the text
        is written in (see `tokenizer.language_of`).
    suffices : whether a movie that has terms of this field can be compared by them. A movie without any is
        served by its genres.
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
        """In how many of so many movies a term may be."""
        return max(FEW, int(self.max_df * movies))


@dataclass(frozen=True)
class Together:
    """How what users did enters the field ``together``.

    Parameters
    ----------
    weights : tried for the field, by nDCG on held-out interactions (see `build`).
    minimum_users : with fewer users whose last interaction can be held out nothing is tried, and the weight
        is 0.
    minimum_interactions : the same, for positive interactions.
    per_user, per_movie : only the latest so many count, of a user and of a movie; so the cost of the field
        grows with the interactions, not with their square.
    """

    weights: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 2.0)
    minimum_users: int = 50
    minimum_interactions: int = 500
    per_user: int = 200
    per_movie: int = 500


@dataclass(frozen=True)
class Judging:
    """How an index is measured.

    Parameters
    ----------
    users : at most so many have their last interactions held out.
    history : so many of a user's latest interactions before it are what is asked with.
    seeds : at most so many movies are asked for, for the intra-list diversity.
    calls : answers that are timed.
    seed : of every choice made among users and movies.
    """

    users: int = 2_000
    history: int = 20
    seeds: int = 1_000
    calls: int = 200
    seed: int = 1


@dataclass(frozen=True)
class Settings:
    """Everything a build depends on beside the catalogue.

    top_k : so many neighbours of every movie are computed beforehand.
    """

    fields: tuple[Field, ...]
    top_k: int = 100
    together: Together = Together()
    judging: Judging = Judging()

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        if len(set(names)) < len(names) or not names:
            raise ValueError(f"each field is declared once, and one at least: {', '.join(names) or 'none'}")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Settings:
        """What `as_json` gave, also after a way through JSON, where tuples are lists."""
        fields = tuple(
            Field(**{**each, "stop_words": tuple(each.get("stop_words", ()))}) for each in given["fields"]
        )
        together = dict(given.get("together", {}))
        if "weights" in together:
            together["weights"] = tuple(together["weights"])
        judging = Judging(**given.get("judging", {}))
        return cls(fields, given.get("top_k", 100), Together(**together), judging)


PLAIN: Final = Settings((Field("description", stop_words=("en",)),))
"""What ``TfidfVectorizer(stop_words="english")`` makes of the descriptions, and nothing else."""
