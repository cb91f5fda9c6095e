"""Parses interactions, and feedback on recommendations."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from django.utils import timezone

from predictions.outcomes.parsing import TOLERATED, moment
from recommender.files.interactions import LONGEST_REFERENCE
from recommender.models import Interaction
from recommender.movie_schema import Read, Reading, Refused, read_column
from recommender.recommendations.request import LARGEST_ID
from vigia_ml.schema import Column, Fault, InvalidRows
from vigia_ml.schema.faults import echo, read_all

MOST_ENTRIES: Final = 1_000
"""Most entries of one request with feedback."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One reported interaction with a movie; at : its time, None for now. user : None in feedback, whose
    recommendation names the user."""

    movie_id: int
    kind: str
    at: dt.datetime | None = None
    user: str | None = None


def _time(value: Any) -> dt.datetime | None:
    if value is None:
        return None
    time = moment(value, "at")
    if isinstance(time, Fault):
        raise Refused([time])
    if time > timezone.now() + TOLERATED:  # a profile weighs the newest interactions most
        raise Refused.with_fault("at", "in_the_future", "at lies in the future", value)
    return time


def _readers(*columns: Column) -> dict[str, Read]:
    return {column.name: partial(read_column, column, text=False) for column in columns} | {"at": _time}


_KIND: Final = Column("kind", "category", levels=tuple(Interaction.Kind.values))
_INTERACTION: Final = _readers(
    Column("user", "text", max_length=LONGEST_REFERENCE),
    Column("movie_id", "integer", minimum=1),
    _KIND,
)
_FEEDBACK: Final = _readers(Column("movie_id", "integer", minimum=1, maximum=LARGEST_ID), _KIND)


def read_interaction(raw: object) -> Entry | list[Fault]:
    """Returns the interaction of one decoded object, or its faults."""
    return _read(raw, _INTERACTION, "an interaction", "an interaction")


def read_feedback(data: object) -> list[Entry]:
    """Returns the entries of a request with feedback: one object or an array of objects. Raises `InvalidRows`
    with every fault of every entry."""
    rows = data if isinstance(data, list) else [data]
    if not rows or len(rows) > MOST_ENTRIES:
        raise InvalidRows.single(
            None, "too_long" if rows else "empty_array", f"send 1 to {MOST_ENTRIES:,} entries"
        )
    return read_all(rows, lambda raw: _read(raw, _FEEDBACK, "an entry", "feedback"), "entries")


def _read(raw: object, readers: Mapping[str, Read], noun: str, kind: str) -> Entry | list[Fault]:
    if not isinstance(raw, Mapping):
        message = f"{noun} must be a JSON object"
        return [Fault(None, "not_an_object", message, echo(raw), has_value=True)]
    reading = Reading.of(raw, readers, kind)
    reading.require(name for name in readers if name != "at")
    return reading.faults or Entry(**reading.values)
