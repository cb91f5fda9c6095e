"""The worst answers lately: among the newest predictions with outcomes, those furthest from the truth.

Bounded whatever the log's length: the hours that have outcomes are known (`QualityHour`), and no more of the
newest of them are opened than it takes to have `ROWS`, nor more than `HOURS`. Within them the outcomes are a
range of the index (prediction_id, -id), and each row of the log is one look into its primary key.

Outcomes do not say which version answered. They are opened in pieces, the newest first; between two pieces
all that others answered since the version's next row is passed over with one look into (version_id, id).
"""

from __future__ import annotations

import datetime as dt
import heapq
import uuid
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from django.db import connection

from core.uuid7 import lowest_at
from predictions.models import QualityHour
from predictions.quality import sql
from training.models import ModelVersion

ROWS: Final = 2_000
OPENED: Final = 10 * ROWS
"""So many outcomes are opened at most, whoever answered."""
HOURS: Final = 48
SHOWN: Final = 20
HOUR: Final = dt.timedelta(hours=1)

# Those of other versions come as well, without their answer: they say how far was looked.
_PIECE: Final = """
    SELECT held.prediction_id, log.key, log.prediction::text, log.probability, held.actual::text
    FROM (
        SELECT DISTINCT ON (prediction_id) prediction_id, actual
        FROM predictions_outcome
        WHERE registered_model_id = %s AND prediction_id >= %s AND prediction_id <= %s
        ORDER BY prediction_id DESC, id DESC
        LIMIT %s
    ) AS held
    LEFT JOIN LATERAL (
        SELECT * FROM predictions_prediction WHERE id = held.prediction_id LIMIT 1
    ) AS log ON log.version_id = %s
    ORDER BY held.prediction_id DESC
"""
_NEXT: Final = """
    SELECT id FROM predictions_prediction WHERE version_id = %s AND id >= %s AND id < %s
    ORDER BY id DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Wrong:
    """One answer and its truth.

    error : of numbers the distance, in the target's unit; of classes how much probability the truth was
        denied, 0 (sure and right) to 1 (sure and wrong).
    """

    prediction_id: str
    key: str | None
    prediction: Any
    probability: float | None
    actual: Any
    error: float


@dataclass(frozen=True, slots=True)
class Worst:
    """looked_at : rows with outcomes that were looked through. since, until : the hours opened; None where no
    outcome is known."""

    rows: list[Wrong]
    looked_at: int
    since: dt.datetime | None = None
    until: dt.datetime | None = None


def of_version(version: ModelVersion, since: dt.datetime, until: dt.datetime) -> Worst:
    """The `SHOWN` worst answers of a version in the window, the worst first."""
    known = QualityHour.objects.filter(version=version, hour__gte=since, hour__lt=until, rows__gt=0)
    opened: list[dt.datetime] = []
    rows = 0
    for hour, labelled in known.order_by("-hour").values_list("hour", "rows")[:HOURS]:
        opened.append(hour)
        rows += labelled
        if rows >= ROWS:
            break
    if not opened:
        return Worst([], 0)
    first, last = opened[-1], opened[0] + HOUR
    found = _labelled(version, lowest_at(first), lowest_at(last))
    positive = sql.positive(version)
    about = None if positive is None else msgspec.json.decode(positive)
    judged = [_judged(row, about) for row in found]
    wrong = [row for row in judged if row is not None and row.error > 0]
    return Worst(heapq.nlargest(SHOWN, wrong, key=lambda row: row.error), len(found), first, last)


def _labelled(version: ModelVersion, lowest: uuid.UUID, end: uuid.UUID) -> list[tuple[Any, ...]]:
    """The newest `ROWS` of the version's rows with outcomes whose ids are from `lowest` to before `end`, as
    far as they are among the `OPENED` that are looked at."""
    found: list[tuple[Any, ...]] = []
    highest = uuid.UUID(int=end.int - 1)
    with connection.cursor() as cursor:
        for _ in range(OPENED // ROWS):
            cursor.execute(_PIECE, [version.registered_model_id, lowest, highest, ROWS, version.pk])
            piece = cursor.fetchall()
            found += [row for row in piece if row[2] is not None]
            if len(piece) < ROWS or len(found) >= ROWS:
                break
            cursor.execute(_NEXT, [version.pk, lowest, piece[-1][0]])
            following = cursor.fetchone()
            if following is None:
                break
            highest = following[0]
    return found[:ROWS]


def _judged(row: tuple[Any, ...], positive: Any) -> Wrong | None:
    """With its error; None where answer and outcome cannot be compared.

    positive : the class a probability is about; None where it is that of the answer itself.
    """
    prediction_id, key, said, probability, happened = row
    prediction, actual = msgspec.json.decode(said), msgspec.json.decode(happened)
    if probability is None:
        numbers = all(type(each) in (int, float) for each in (prediction, actual))
        if not numbers and type(prediction) is not type(actual):
            return None
        error = abs(prediction - actual) if numbers else float(prediction != actual)
    elif positive is not None:
        error = abs(probability - float(actual == positive))
    else:
        error = 1 - probability if prediction == actual else probability
    return Wrong(str(prediction_id), key, prediction, probability, actual, float(error))
