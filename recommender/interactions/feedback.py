"""What became of recommendations: reported by clients, joined with the log's row, counted by version."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any, Final

from django.contrib.auth.models import User
from django.db import OperationalError, connection, transaction
from django.utils import timezone
from psycopg.errors import QueryCanceled

from core.errors import NotFound
from core.uuid7 import lowest_at, time_of
from predictions.log import queries
from predictions.models import Prediction
from predictions.quality.confidence_intervals import Estimate, share
from recommender.models import Interaction
from recommender.recommendations.request import QUESTION
from training.models import RegisteredModel
from vigia_ml.schema import Fault, InvalidRows

POSITIVE: Final = (Interaction.Kind.CLICKED, Interaction.Kind.WATCHED, Interaction.Kind.LIKED)
TOLERATED: Final = dt.timedelta(minutes=5)
"""Clocks differ: so much earlier than its answer is still after it."""
_USER: Final = QUESTION.names.index("user")


@dataclass(frozen=True, slots=True)
class Given:
    """Something somebody did with a recommended movie; at : when, None for now."""

    movie_id: int
    kind: str
    at: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """recorded : new ones, by kind. repeated : that were known. first_positive : whether the recommendation
    was clicked, watched or liked for the first time."""

    version: int
    recorded: dict[str, int]
    repeated: int
    first_positive: bool


def find(model: RegisteredModel, identifier: uuid.UUID) -> Prediction:
    """The log's row of a recommendation, or `NotFound`."""
    row = queries.find(identifier)
    if row is None or row.registered_model_id != model.pk:
        raise NotFound(f"there is no recommendation {identifier}")
    return row


def record(row: Prediction, given: list[Given], *, by: User | None) -> Recorded:
    """Writes the feedback of one request, all of it or none. Repeating is harmless.

    Raises
    ------
    InvalidRows : a movie was not among those recommended, or something was done before.
    """
    places = {each["movie_id"]: place for place, each in enumerate(row.prediction, 1)}
    earliest = time_of(row.pk) - TOLERATED
    faults = []
    for place, each in enumerate(given):
        if each.movie_id not in places:
            said = "the movie was not among those recommended"
            faults.append(
                Fault("movie_id", "not_recommended", said, each.movie_id, row=place, has_value=True)
            )
        if each.at is not None and each.at < earliest:
            said = "at lies before the recommendation"
            faults.append(
                Fault("at", "before_the_answer", said, each.at.isoformat(), row=place, has_value=True)
            )
    if faults:
        bad = len({fault.row for fault in faults})
        raise InvalidRows(faults, rows=len(given), bad=bad, what="entries")
    now = timezone.now()
    with transaction.atomic():
        with connection.cursor() as cursor:  # of two at once, one finds what the other has written
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"feedback {row.pk}"])
        before = Interaction.objects.filter(recommendation=row.pk)
        known = set(before.values_list("movie_id", "kind"))
        fresh = {(each.movie_id, each.kind): each for each in reversed(given)}
        fresh = {key: each for key, each in reversed(fresh.items()) if key not in known}
        Interaction.objects.bulk_create(
            Interaction(
                user=row.cells[_USER],
                movie_id=each.movie_id,
                kind=each.kind,
                recommendation=row.pk,
                version_id=row.version_id,
                rank=places[each.movie_id],
                client=by,
                at=each.at or now,
            )
            for each in fresh.values()
        )
    recorded: dict[str, int] = {}
    for _, kind in fresh:
        recorded[kind] = recorded.get(kind, 0) + 1
    was = any(kind in POSITIVE for _, kind in known)
    first = not was and any(kind in POSITIVE for kind in recorded)
    return Recorded(row.version.number, recorded, len(given) - len(fresh), first)


# -- click-through -------------------------------------------------------------------------------------

# A window of the log by the ids, which are time. What came of it is counted apart, by the unique index on the
# recommendation's id: there is far less of that than there are rows.
_ANSWERED: Final = """
    SELECT version_id, count(*), count(*) FILTER (WHERE prediction = '[]'::jsonb)
    FROM predictions_prediction WHERE registered_model_id = %s AND id >= %s AND id < %s GROUP BY version_id
"""
# Months are removed from the log; what came of their answers stays, and is no longer a share of anything.
_OLDEST: Final = """
    SELECT id FROM predictions_prediction WHERE registered_model_id = %s AND id >= %s AND id < %s
    ORDER BY id LIMIT 1
"""
_BECAME: Final = """
    SELECT version_id, count(*) FILTER (WHERE rank IS NOT NULL), avg(rank)::float8,
           sum(liked)::bigint, sum(disliked)::bigint
    FROM (
        SELECT version_id, recommendation,
               min(rank) FILTER (WHERE kind <> 'disliked') AS rank,
               count(*) FILTER (WHERE kind = 'liked') AS liked,
               count(*) FILTER (WHERE kind = 'disliked') AS disliked
        FROM recommender_interaction WHERE recommendation >= %s AND recommendation < %s
        GROUP BY version_id, recommendation
    ) AS came GROUP BY version_id
"""


COUNTING_SECONDS: Final = 20
"""What counting may cost: a million rows of the log take about one."""


@dataclass(frozen=True, slots=True)
class VersionQuality:
    """What became of one version's answers in a window.

    answered : rows of the log. empty : that name no movie. clicked : of which a movie was clicked, watched or
    liked. click_through : clicked / (answered - empty); None without answers that name movies.
    mean_rank : of the best placed of those movies; 1 is the first. liked, disliked : movies.
    """

    version: int
    answered: int
    empty: int
    clicked: int
    click_through: Estimate | None
    mean_rank: float | None
    liked: int
    disliked: int


def by_version(model: RegisteredModel, since: dt.datetime, until: dt.datetime) -> list[VersionQuality]:
    """Of every version that answered from `since` on, before `until`, by number.

    Raises
    ------
    InvalidRows : to count them takes longer than `COUNTING_SECONDS`.
    """
    try:
        answered, became = _counted(model, lowest_at(since), lowest_at(until))
    except OperationalError as error:
        if not isinstance(error.__cause__, QueryCanceled):
            raise
        said = "the window holds more answers than can be counted at once: ask for a shorter one"
        raise InvalidRows([Fault("since", "out_of_bounds", said)], message=said) from None
    numbers = dict(model.versions.filter(pk__in=answered).values_list("pk", "number"))
    found = []
    for version_id, (rows, empty) in answered.items():
        clicked, rank, liked, disliked = became.get(version_id, (0, None, 0, 0))
        clicked = min(clicked, rows - empty)  # feedback may overtake the count of its answer
        through = share(clicked, rows - empty)
        found.append(
            VersionQuality(
                numbers[version_id], rows, empty, clicked, through, rank, liked or 0, disliked or 0
            )
        )
    return sorted(found, key=lambda each: each.version)


def _counted(
    model: RegisteredModel, low: uuid.UUID, high: uuid.UUID
) -> tuple[dict[int, tuple[int, int]], dict[int, tuple[Any, ...]]]:
    """Of answers with ids in [low, high), by version: (rows, empty ones) and the rest of `VersionQuality`."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('statement_timeout', %s, true)", [f"{COUNTING_SECONDS * 1_000:.0f}ms"]
        )
        cursor.execute(_OLDEST, [model.pk, low, high])
        oldest = cursor.fetchone()
        if oldest is None:
            return {}, {}
        cursor.execute(_ANSWERED, [model.pk, low, high])
        answered = {version: (rows, empty) for version, rows, empty in cursor.fetchall()}
        cursor.execute(_BECAME, [oldest[0], high])
        became = {version: tuple(rest) for version, *rest in cursor.fetchall()}
        cursor.execute("SELECT set_config('statement_timeout', '0', true)")
    return answered, became
