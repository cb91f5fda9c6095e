"""What a file of interactions says: user, movie_id, kind, at; or a MovieLens file's userId, movieId, rating,
timestamp."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Any, Final

from recommender.files.tabular import NO_TARGET, Layout
from vigia_ml.schema import Column, DatasetSchema, Fault
from vigia_ml.schema.faults import echo

KINDS: Final = ("clicked", "watched", "liked", "disliked")
LONGEST_REFERENCE: Final = 200
"""Characters of a client's own reference to a person."""
LIKED_FROM, DISLIKED_TO = 4.0, 2.0
"""Stars, of five: so many or more are a like, so many or fewer a dislike; what lies between was watched."""
TOLERATED: Final = dt.timedelta(seconds=5)
"""Clocks differ a little: so much later than ours is still now."""
_SECONDS = re.compile(r"\d{9,11}(\.\d+)?", re.ASCII)  # from 1973 on; eight digits are 19730303

SCHEMA: Final = DatasetSchema(
    columns=(
        Column("user", "text", aliases=("user_id", "userId"), max_length=LONGEST_REFERENCE),
        Column("movie_id", "integer", aliases=("movieId",), minimum=1),
        Column("kind", "category", nullable=True, levels=tuple(sorted(KINDS)), normalise="lower"),
        Column("rating", "number", nullable=True, minimum=0, maximum=5),
        Column("at", "text", aliases=("timestamp",), max_length=40),
    ),
    target=NO_TARGET,
    fold_names=True,
)


@dataclass(frozen=True, slots=True)
class Row:
    """What somebody did with a movie, and when (UTC)."""

    user: str
    movie_id: int
    kind: str
    at: dt.datetime


def assemble(given: dict[str, Any]) -> Row | list[Fault]:
    faults = []
    kind = given.get("kind")
    if kind is None:
        stars = given.get("rating")
        if stars is None:
            faults.append(Fault("kind", "missing_field", "kind is missing, and so is rating"))
        else:
            kind = kind_of(stars)
    at = moment(given["at"], "at")
    if isinstance(at, Fault):
        faults.append(at)
    if faults or isinstance(at, Fault):
        return faults
    assert kind is not None
    return Row(given["user"], given["movie_id"], kind, at)


def kind_of(stars: float) -> str:
    """What a rating of 0 to 5 stars says."""
    return "liked" if stars >= LIKED_FROM else "disliked" if stars <= DISLIKED_TO else "watched"


def moment(value: Any, name: str) -> dt.datetime | Fault:
    """A time out of ISO 8601 (UTC where it names no zone) or out of Unix seconds, not in the future."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    text = str(value).strip() if isinstance(value, str) or is_number else ""
    try:
        if _SECONDS.fullmatch(text):
            found = dt.datetime.fromtimestamp(float(text), dt.UTC)
        else:
            found = dt.datetime.fromisoformat(text)
            found = found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found.astimezone(dt.UTC)
    except (ValueError, OverflowError, OSError):
        return Fault(name, "not_a_time", f"{name} must be an ISO 8601 time", echo(value), has_value=True)
    if found > dt.datetime.now(dt.UTC) + TOLERATED:
        return Fault(name, "in_the_future", f"{name} lies in the future", echo(value), has_value=True)
    return found


LAYOUT: Final[Layout[Row]] = Layout(SCHEMA, assemble, raw=frozenset({"at"}), needs=(("kind", "rating"),))
