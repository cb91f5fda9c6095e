"""Records the interactions that requests report; a request is recorded whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from core.errors import TooLarge
from recommender.catalogue.service import first_rows
from recommender.interactions import parsing
from recommender.interactions.parsing import Entry
from recommender.models import Interaction, Movie
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
    it counts as repeated. Raises `InvalidRows` with every fault of every row, and `TooLarge` for more rows
    than `settings.PREDICT_MAX_ROWS`.
    """
    rows = _rows(data)
    good: dict[int, Entry] = {}
    bad: set[int] = set()
    faults: list[Fault] = []

    def refuse(row: int, found: Sequence[Fault]) -> None:
        bad.add(row)
        if len(faults) <= REPORTED_FAULTS:
            faults.extend(fault.at(row=row) for fault in found)

    for row, raw in enumerate(rows):
        entry = parsing.read_interaction(raw)
        if isinstance(entry, Entry):
            good[row] = entry
        else:
            refuse(row, entry)
    known = set(
        Movie.objects.filter(pk__in={entry.movie_id for entry in good.values()}).values_list("pk", flat=True)
    )
    for row, entry in good.items():
        if entry.movie_id not in known:
            message = f"the catalogue has no movie {entry.movie_id}"
            refuse(row, [Fault("movie_id", "unknown_movie", message, entry.movie_id, has_value=True)])
    if bad:
        faults.sort(key=lambda fault: fault.row or 0)
        raise InvalidRows(faults, rows=len(rows), bad=len(bad), noun="interactions")
    with transaction.atomic():
        recorded = _insert(list(good.values()), by)
    return Recorded(len(rows), recorded, len(rows) - recorded)


def _rows(data: Any) -> list[Any]:
    if isinstance(data, dict):
        data = [data]
    if not isinstance(data, list) or not data:
        raise InvalidRows.single(None, "not_an_array", "send one interaction, or an array of at least one")
    if len(data) > settings.PREDICT_MAX_ROWS:
        message = f"a request may hold at most {settings.PREDICT_MAX_ROWS:,} interactions; split it"
        raise TooLarge(message, code="too_many_rows")
    return data


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
