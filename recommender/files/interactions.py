"""The layout of a file of interactions: user, movie_id, kind, at; or MovieLens' userId, movieId, rating,
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
"""Longest reference of a client to a user, in characters."""
LIKED_FROM, DISLIKED_TO = 4.0, 2.0
"""Stars of five: from LIKED_FROM on a rating is a like, up to DISLIKED_TO a dislike, between them
`watched`."""
TOLERATED: Final = dt.timedelta(seconds=5)
"""Accepted lead of a client's clock over this server's."""
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
    """One interaction of a file: user, movie, kind and time (UTC)."""

    user: str
    movie_id: int
    kind: str
    at: dt.datetime


def assemble(values: dict[str, Any]) -> Row | list[Fault]:
    """Returns the interaction of a row's values, or its faults."""
    kind: Any = values.get("kind")
    stars = values.get("rating")
    if kind is None and stars is not None:
        kind = kind_of(stars)
    at = moment(values["at"], "at")
    faults = [at] if isinstance(at, Fault) else []
    if kind is None:
        message = "kind and rating are missing: give one of them"
        faults.insert(0, Fault("kind", "missing_field", message))
    if faults or isinstance(at, Fault):
        return faults
    return Row(values["user"], values["movie_id"], kind, at)


def kind_of(stars: float) -> str:
    """Returns the kind of interaction that a rating of 0 to 5 stars stands for."""
    return "liked" if stars >= LIKED_FROM else "disliked" if stars <= DISLIKED_TO else "watched"


def moment(value: Any, name: str) -> dt.datetime | Fault:
    """Parses ISO 8601 (UTC without a zone) or Unix seconds; a time in the future is a fault."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    text = str(value).strip() if isinstance(value, str) or is_number else ""
    try:
        if _SECONDS.fullmatch(text):
            time = dt.datetime.fromtimestamp(float(text), dt.UTC)
        else:
            time = dt.datetime.fromisoformat(text)
            time = time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)
    except (ValueError, OverflowError, OSError):
        return Fault(name, "not_a_time", f"{name} must be an ISO 8601 time", echo(value), has_value=True)
    if time > dt.datetime.now(dt.UTC) + TOLERATED:
        return Fault(name, "in_the_future", f"{name} lies in the future", echo(value), has_value=True)
    return time


LAYOUT: Final[Layout[Row]] = Layout(SCHEMA, assemble, raw=frozenset({"at"}), needs=(("kind", "rating"),))
