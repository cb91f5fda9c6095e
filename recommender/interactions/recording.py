"""What users did with movies, told by requests: a request is recorded whole or not at all."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from core.errors import TooLarge
from predictions.outcomes.parsing import TOLERATED, moment
from recommender.files.interactions import LONGEST_REFERENCE
from recommender.models import Interaction
from recommender.movie_schema import Refused, read_column
from training.models import sharing_versions
from vigia_ml.schema import Column, Fault, InvalidRows
from vigia_ml.schema.columns import is_storable
from vigia_ml.schema.dataset import RepeatedNames
from vigia_ml.schema.faults import REPORTED_FAULTS, clip, echo

FIELDS: Final = ("user", "movie_id", "kind", "at")
LOCK: Final = 22_125
"""Class of the advisory lock of those that tell without a time."""
_COLUMNS: Final = {
    "user": Column("user", "text", max_length=LONGEST_REFERENCE),
    "movie_id": Column("movie_id", "integer", minimum=1),
    "kind": Column("kind", "category", levels=tuple(Interaction.Kind.values)),
}


@dataclass(frozen=True, slots=True)
class Given:
    """One interaction of a request; `at` is None where it does not say."""

    user: str
    movie_id: int
    kind: str
    at: dt.datetime | None
    row: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """recorded : of the rows received, those that were new; the others were known already."""

    received: int
    recorded: int
    repeated: int


def record(data: Any, *, by: User | None) -> Recorded:
    """Records one decoded object, or an array of them.

    Without a time of its own an interaction happened now, unless the user did the same with the movie
    before: then it is taken for a repeated request.

    Raises
    ------
    InvalidRows : with every fault of every row. TooLarge : see `settings.PREDICT_MAX_ROWS`.
    """
    reading = _read(data)
    unknown = _unknown({given.movie_id for given in reading.good})
    for given in reading.good:
        if given.movie_id in unknown:
            said = f"the catalogue has no movie {given.movie_id}"
            reading.refuse(
                given.row, [Fault("movie_id", "unknown_movie", said, given.movie_id, has_value=True)]
            )
    if reading.bad:
        reading.faults.sort(key=lambda fault: fault.row or 0)
        raise InvalidRows(reading.faults, rows=reading.rows, bad=len(reading.bad), what="interactions")
    with transaction.atomic():
        recorded = _insert(reading.good, by)
    return Recorded(reading.rows, recorded, reading.rows - recorded)


@dataclass(slots=True)
class _Reading:
    """A request's rows so far: those that could be read, and what is wrong with the others."""

    good: list[Given] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    bad: set[int] = field(default_factory=set)
    rows: int = 0

    def refuse(self, row: int, faults: Sequence[Fault]) -> None:
        self.bad.add(row)
        if len(self.faults) <= REPORTED_FAULTS:
            self.faults += [fault.at(row=row) for fault in faults]


def _read(data: Any) -> _Reading:
    if isinstance(data, dict):
        data = [data]
    if not isinstance(data, list) or not data:
        said = "send an interaction, or an array with at least one"
        raise InvalidRows([Fault(None, "not_an_array", said)], message=said)
    if len(data) > settings.PREDICT_MAX_ROWS:
        said = f"at most {settings.PREDICT_MAX_ROWS:,} interactions are recorded in one request"
        raise TooLarge(said, code="too_many_rows")
    reading = _Reading(rows=len(data))
    latest = timezone.now() + TOLERATED
    for row, raw in enumerate(data):
        found = _read_one(raw, row, latest)
        if isinstance(found, Given):
            reading.good.append(found)
        else:
            reading.refuse(row, found)
    return reading


def _read_one(raw: object, row: int, latest: dt.datetime) -> Given | list[Fault]:
    if not isinstance(raw, Mapping):
        said = "an interaction must be a JSON object"
        return [Fault(None, "not_an_object", said, echo(raw), has_value=True)]
    repeated = raw.repeated if isinstance(raw, RepeatedNames) else ()
    faults = [Fault(clip(name), "duplicate_field", f"{clip(name)} is given twice") for name in repeated]
    for name in raw:
        if name not in FIELDS:
            said = f"{clip(name)} is not a field of an interaction"
            faults.append(Fault(clip(name), "unknown_field", said, allowed=FIELDS))
        if len(faults) > REPORTED_FAULTS:
            return faults
    values: dict[str, Any] = {}
    for name, column in _COLUMNS.items():
        if name not in raw:
            faults.append(Fault(name, "missing_field", f"{name} is missing"))
            continue
        try:
            values[name] = read_column(column, raw[name], text=False)
        except Refused as refused:
            faults += refused.faults
    at = moment(raw["at"], "at") if raw.get("at") is not None else None
    if isinstance(at, Fault):
        faults.append(at)
    elif at is not None and at > latest:
        faults.append(Fault("at", "in_the_future", "at lies in the future", echo(raw["at"]), has_value=True))
    if faults or isinstance(at, Fault):
        return faults
    return Given(**values, at=at, row=row)


def _unknown(ids: set[int]) -> set[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT asked.id FROM unnest(%s::bigint[]) AS asked (id) "
            "WHERE NOT EXISTS (SELECT FROM recommender_movie AS movie WHERE movie.id = asked.id)",
            [sorted(ids)],
        )
        return {row[0] for row in cursor.fetchall()}


def page(
    *, user: str | None, movie_id: int | None, before: int | None, limit: int
) -> tuple[list[Interaction], int | None]:
    """(interactions, the newest first; cursor of the next page or None). Always by an index."""
    rows = Interaction.objects.select_related("client").prefetch_related(*sharing_versions("version"))
    if user is not None:
        rows = rows.filter(user=user) if is_storable(user) else rows.none()
    if movie_id is not None:
        rows = rows.filter(movie_id=movie_id)
    if before is not None:
        rows = rows.filter(pk__lt=before)
    found = list(rows.order_by("-pk")[: limit + 1])
    more = len(found) > limit
    found = found[:limit]
    return found, found[-1].pk if more else None


# Always in the order of what makes a row unique: two that write the same rows wait for each other, never in a
# circle.
_TIMED = """
    INSERT INTO recommender_interaction ("user", movie_id, kind, at, client_id, received_at)
    SELECT given."user", given.movie_id, given.kind, given.at, %s::integer, %s::timestamptz
    FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::timestamptz[]) AS given ("user", movie_id, kind, at)
    ORDER BY at, "user", movie_id, kind
    ON CONFLICT DO NOTHING
"""
_UNTIMED = """
    INSERT INTO recommender_interaction ("user", movie_id, kind, at, client_id, received_at)
    SELECT DISTINCT given."user", given.movie_id, given.kind,
        %s::timestamptz, %s::integer, %s::timestamptz
    FROM unnest(%s::text[], %s::bigint[], %s::text[]) AS given ("user", movie_id, kind)
    WHERE NOT EXISTS (
        SELECT FROM recommender_interaction AS known
        WHERE known."user" = given."user" AND known.movie_id = given.movie_id AND known.kind = given.kind
    )
    ON CONFLICT DO NOTHING
"""


def _insert(given: Sequence[Given], by: User | None) -> int:
    """Those with a time first: the same without one is a repeat of it. How many are new."""
    now, client = timezone.now(), by.pk if by else None
    timed = [each for each in given if each.at is not None]
    untimed = [each for each in given if each.at is None]
    recorded = 0
    with connection.cursor() as cursor:
        if timed:
            cursor.execute(_TIMED, [client, now, *_columns(timed), [each.at for each in timed]])
            recorded += cursor.rowcount
        if untimed:
            # Two that retry at once must not both find that nothing is known.
            cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", [LOCK])
            cursor.execute(_UNTIMED, [now, client, now, *_columns(untimed)])
            recorded += cursor.rowcount
    return recorded


def _columns(given: Sequence[Given]) -> list[list[Any]]:
    return [[getattr(each, name) for each in given] for name in ("user", "movie_id", "kind")]
