"""Parses feedback requests: one object or an array of objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.utils import timezone

from predictions.outcomes.parsing import TOLERATED, moment
from recommender.interactions.feedback import FeedbackEntry
from recommender.models import Interaction
from recommender.recommendations.request import LARGEST_ID
from vigia_ml.schema import Column, Fault, InvalidRows
from vigia_ml.schema.columns import BadValue
from vigia_ml.schema.dataset import RepeatedNames
from vigia_ml.schema.faults import REPORTED_FAULTS, clip, echo

MOST: Final = 1_000
FIELDS: Final = ("movie_id", "kind", "at")
_COLUMNS: Final = {
    "movie_id": Column("movie_id", "integer", minimum=1, maximum=LARGEST_ID),
    "kind": Column("kind", "category", levels=tuple(Interaction.Kind.values)),
}


def read(data: object) -> list[FeedbackEntry]:
    """Returns the entries of a request.

    Raises
    ------
    InvalidRows : an entry is invalid; the error holds every fault of every entry.
    """
    rows = data if isinstance(data, list) else [data]
    if not rows or len(rows) > MOST:
        message = f"send 1 to {MOST:,} entries"
        raise InvalidRows([Fault(None, "too_long" if rows else "empty_array", message)], message=message)
    good: list[FeedbackEntry] = []
    faults: list[Fault] = []
    bad = 0
    for at, raw in enumerate(rows):
        entry = _entry(raw)
        if isinstance(entry, FeedbackEntry):
            good.append(entry)
        else:
            bad += 1
            faults.extend(fault.at(row=at) for fault in entry)
        if len(faults) > REPORTED_FAULTS:
            break
    if faults:
        raise InvalidRows(faults, rows=len(rows), bad=bad, what="entries")
    return good


def _entry(raw: object) -> FeedbackEntry | list[Fault]:
    if not isinstance(raw, Mapping):
        return [Fault(None, "not_an_object", "an entry must be a JSON object", echo(raw), has_value=True)]
    repeated = raw.repeated if isinstance(raw, RepeatedNames) else ()
    faults = [Fault(clip(name), "duplicate_field", f"{clip(name)} is given twice") for name in repeated]
    faults += [
        Fault(clip(name), "unknown_field", f"{clip(name)} is not a field of feedback", allowed=FIELDS)
        for name in raw
        if name not in FIELDS
    ]
    values: dict[str, Any] = {}
    for name, column in _COLUMNS.items():
        if name not in raw:
            faults.append(Fault(name, "missing_field", f"{name} is missing"))
            continue
        try:
            values[name] = column.from_json(raw[name])
        except BadValue as error:
            faults.append(error.fault)
    if raw.get("at") is not None:
        read_at = moment(raw["at"], "at")
        if isinstance(read_at, Fault):
            faults.append(read_at)
        elif read_at > timezone.now() + TOLERATED:  # a profile weighs the newest interactions most
            message = "at lies in the future"
            faults.append(Fault("at", "in_the_future", message, echo(raw["at"]), has_value=True))
        else:
            values["at"] = read_at
    return faults or FeedbackEntry(**values)
