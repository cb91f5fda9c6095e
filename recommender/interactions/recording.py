"""Records the interactions that requests report; a request is recorded whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from core.errors import TooLarge
from recommender.catalogue.service import first_rows
from recommender.interactions import parsing
from recommender.interactions.parsing import Entry
from recommender.models import Interaction
from training.models import sharing_versions
from vigia_ml.schema import Fault, InvalidRows
from vigia_ml.schema.columns import is_storable
from vigia_ml.schema.faults import REPORTED_FAULTS

LOCK: Final = 22_125
"""Class of the advisory lock for interactions without a time."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Counts of one request: received rows, newly recorded rows, and rows that were already recorded."""

    received: int
    recorded: int
    repeated: int


def record(data: Any, *, by: User | None) -> Recorded:
    """Records one decoded object, or an array of objects.

    An interaction without a time happened now, unless the same user, movie and kind is already recorded: then
    it counts as repeated.

    Raises
    ------
    InvalidRows : a row is invalid; the error holds every fault of every row. TooLarge : more rows than
        `settings.PREDICT_MAX_ROWS`.
    """
    reading = _read(data)
    unknown = _unknown({entry.movie_id for entry in reading.good})
    for entry in reading.good:
        if entry.movie_id in unknown:
            message = f"the catalogue has no movie {entry.movie_id}"
            reading.refuse(
                entry.row, [Fault("movie_id", "unknown_movie", message, entry.movie_id, has_value=True)]
            )
    if reading.bad:
        reading.faults.sort(key=lambda fault: fault.row or 0)
        raise InvalidRows(reading.faults, rows=reading.rows, bad=len(reading.bad), what="interactions")
    with transaction.atomic():
        recorded = _insert(reading.good, by)
    return Recorded(reading.rows, recorded, reading.rows - recorded)


@dataclass(slots=True)
class _Reading:
    """The rows of a request parsed so far: good rows, and the faults of the bad rows."""

    good: list[Entry] = field(default_factory=list)
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
        message = "send one interaction, or an array of at least one"
        raise InvalidRows([Fault(None, "not_an_array", message)], message=message)
    if len(data) > settings.PREDICT_MAX_ROWS:
        message = f"a request may hold at most {settings.PREDICT_MAX_ROWS:,} interactions; split it"
        raise TooLarge(message, code="too_many_rows")
    reading = _Reading(rows=len(data))
    for row, raw in enumerate(data):
        entry = parsing.read_interaction(raw, row)
        if isinstance(entry, Entry):
            reading.good.append(entry)
        else:
            reading.refuse(row, entry)
    return reading


def _unknown(ids: set[int]) -> set[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT entry.id FROM unnest(%s::bigint[]) AS entry (id) "
            "WHERE NOT EXISTS (SELECT FROM recommender_movie AS movie WHERE movie.id = entry.id)",
            [sorted(ids)],
        )
        return {row[0] for row in cursor.fetchall()}


def page(
    *, user: str | None, movie_id: int | None, before: int | None, limit: int
) -> tuple[list[Interaction], int | None]:
    """Returns (interactions, newest first; cursor of the next page or None). An index serves every filter."""
    rows = Interaction.objects.select_related("client").prefetch_related(*sharing_versions("version"))
    if user is not None:
        rows = rows.filter(user=user) if is_storable(user) else rows.none()
    if movie_id is not None:
        rows = rows.filter(movie_id=movie_id)
    if before is not None:
        rows = rows.filter(pk__lt=before)
    return first_rows(rows.order_by("-pk"), limit)


# Both statements insert in the order of the unique key: two transactions that write the same rows wait for
# each other and never deadlock.
_TIMED = """
    INSERT INTO recommender_interaction ("user", movie_id, kind, at, client_id, received_at)
    SELECT entry."user", entry.movie_id, entry.kind, entry.at, %s::integer, %s::timestamptz
    FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::timestamptz[]) AS entry ("user", movie_id, kind, at)
    ORDER BY at, "user", movie_id, kind
    ON CONFLICT DO NOTHING
"""
_UNTIMED = """
    INSERT INTO recommender_interaction ("user", movie_id, kind, at, client_id, received_at)
    SELECT DISTINCT entry."user", entry.movie_id, entry.kind,
        %s::timestamptz, %s::integer, %s::timestamptz
    FROM unnest(%s::text[], %s::bigint[], %s::text[]) AS entry ("user", movie_id, kind)
    WHERE NOT EXISTS (
        SELECT FROM recommender_interaction AS known
        WHERE known."user" = entry."user" AND known.movie_id = entry.movie_id AND known.kind = entry.kind
    )
    ON CONFLICT DO NOTHING
"""


def _insert(entries: Sequence[Entry], by: User | None) -> int:
    """Inserts the entries and returns how many are new. Entries with a time come first: the same entry
    without a time repeats them."""
    now, client = timezone.now(), by.pk if by else None
    timed = [each for each in entries if each.at is not None]
    untimed = [each for each in entries if each.at is None]
    recorded = 0
    with connection.cursor() as cursor:
        if timed:
            cursor.execute(_TIMED, [client, now, *_columns(timed), [each.at for each in timed]])
            recorded += cursor.rowcount
        if untimed:
            # The lock keeps two concurrent retries from both finding no recorded row.
            cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", [LOCK])
            cursor.execute(_UNTIMED, [now, client, now, *_columns(untimed)])
            recorded += cursor.rowcount
    return recorded


def _columns(entries: Sequence[Entry]) -> list[list[Any]]:
    return [[getattr(each, name) for each in entries] for name in ("user", "movie_id", "kind")]
