"""Feedback on recommendations: clients report it, the log's row identifies it, and versions count it."""

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
from recommender.interactions.parsing import Entry
from recommender.models import Interaction
from recommender.recommendations.request import QUESTION
from training.models import RegisteredModel
from vigia_ml.schema import Fault, InvalidRows

POSITIVE: Final = (Interaction.Kind.CLICKED, Interaction.Kind.WATCHED, Interaction.Kind.LIKED)
TOLERATED: Final = dt.timedelta(minutes=5)
"""Accepted lag of a client's clock behind the recommendation's time."""
_USER: Final = QUESTION.names.index("user")


@dataclass(frozen=True, slots=True)
class Recorded:
    """The result of one request. recorded : new interactions by kind. repeated : interactions that were
    already recorded. first_positive : whether the request holds the recommendation's first click, watch or
    like."""

    version: int
    recorded: dict[str, int]
    repeated: int
    first_positive: bool


def find(model: RegisteredModel, identifier: uuid.UUID) -> Prediction:
    """Returns the log's row of a recommendation. Raises `NotFound`."""
    row = queries.find(identifier)
    if row is None or row.registered_model_id != model.pk:
        raise NotFound(f"no recommendation has the id {identifier}")
    return row


def record(row: Prediction, entries: list[Entry], *, by: User | None) -> Recorded:
    """Records the feedback of one request, all of it or none. Repeating a request is harmless.

    Raises `InvalidRows` if a movie was not recommended or a time lies before the recommendation.
    """
    places = {each["movie_id"]: place for place, each in enumerate(row.prediction, 1)}
    earliest = time_of(row.pk) - TOLERATED
    faults = []
    for place, each in enumerate(entries):
        if each.movie_id not in places:
            message = "the recommendation does not name this movie"
            faults.append(
                Fault("movie_id", "not_recommended", message, each.movie_id, row=place, has_value=True)
            )
        if each.at is not None and each.at < earliest:
            message = "at lies before the recommendation"
            faults.append(
                Fault("at", "before_the_answer", message, each.at.isoformat(), row=place, has_value=True)
            )
    if faults:
        bad = len({fault.row for fault in faults})
        raise InvalidRows(faults, rows=len(entries), bad=bad, noun="entries")
    now = timezone.now()
    with transaction.atomic():
        with connection.cursor() as cursor:  # of two concurrent requests, the second sees the first's rows
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"feedback {row.pk}"])
        before = Interaction.objects.filter(recommendation=row.pk)
        known = set(before.values_list("movie_id", "kind"))
        fresh = {(each.movie_id, each.kind): each for each in reversed(entries)}
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
    return Recorded(row.version.number, recorded, len(entries) - len(fresh), first)


# -- click-through -------------------------------------------------------------------------------------

# Ids hold time, so a range of ids is a window of the log. The unique index on the recommendation's id serves
# a separate count of feedback, of which there is far less than of rows.
_ANSWERED: Final = """
    SELECT version_id, count(*), count(*) FILTER (WHERE prediction = '[]'::jsonb)
    FROM predictions_prediction WHERE registered_model_id = %s AND id >= %s AND id < %s GROUP BY version_id
"""
# Housekeeping removes months of the log but keeps their feedback, which must not enter the shares any more.
_OLDEST: Final = """
    SELECT id FROM predictions_prediction WHERE registered_model_id = %s AND id >= %s AND id < %s
    ORDER BY id LIMIT 1
"""
_FEEDBACK: Final = """
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
"""Time limit of one count, in seconds: a million rows of the log take about one second."""


@dataclass(frozen=True, slots=True)
class VersionQuality:
    """Counts of one version's recommendations and their feedback in a window.

    answered : rows of the log. empty : rows without a movie. clicked : rows with a clicked, watched or liked
    movie. click_through : clicked / (answered - empty); None if no row names a movie. mean_rank : mean place
    of the best placed such movie; 1 is the first. liked, disliked : numbers of movies.
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
    """Returns the counts of every version that answered from `since` on, before `until`, by number. Raises
    `InvalidRows` if counting takes longer than `COUNTING_SECONDS`."""
    try:
        answered, feedback = _counted(model, lowest_at(since), lowest_at(until))
    except OperationalError as error:
        if not isinstance(error.__cause__, QueryCanceled):
            raise
        message = f"counting this window takes more than {COUNTING_SECONDS} seconds: send a shorter one"
        raise InvalidRows.single("since", "out_of_bounds", message) from None
    numbers = dict(model.versions.filter(pk__in=answered).values_list("pk", "number"))
    qualities = []
    for version_id, (rows, empty) in answered.items():
        clicked, rank, liked, disliked = feedback.get(version_id, (0, None, 0, 0))
        clicked = min(clicked, rows - empty)  # feedback may overtake the count of its answer
        through = share(clicked, rows - empty)
        qualities.append(
            VersionQuality(
                numbers[version_id], rows, empty, clicked, through, rank, liked or 0, disliked or 0
            )
        )
    return sorted(qualities, key=lambda each: each.version)


def _counted(
    model: RegisteredModel, low: uuid.UUID, high: uuid.UUID
) -> tuple[dict[int, tuple[int, int]], dict[int, tuple[Any, ...]]]:
    """Counts the rows with ids in [low, high); returns by version (rows, empty rows), and by version the
    feedback counts of `VersionQuality`."""
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
        cursor.execute(_FEEDBACK, [oldest[0], high])
        feedback = {version: tuple(rest) for version, *rest in cursor.fetchall()}
        cursor.execute("SELECT set_config('statement_timeout', '0', true)")
    return answered, feedback
