"""The worst predictions: the newest labelled predictions with the largest errors.

The cost is bounded at any length of the log: `QualityHour` lists the hours with outcomes, and the search
reads as many of the newest hours as `ROWS` rows need, at most `HOURS`. Within them the outcomes are a range
of the index (prediction_id, -id), and each row of the log is one probe of its primary key.

An outcome does not name the version that answered. The search reads outcomes in pieces, newest first;
between two pieces one probe of (version_id, id) skips all answers of other versions.
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
from predictions.quality.sql import classes_of
from predictions.rollups.hours import HOUR
from training.models import ModelVersion

ROWS: Final = 2_000
MAX_OUTCOMES_READ: Final = 10 * ROWS
"""Maximum number of outcomes to read, of all versions."""
HOURS: Final = 48
SHOWN: Final = 20

# Outcomes of other versions are included without their answer: they mark how far the search has read.
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
class WorstPrediction:
    """One answer with its actual value.

    error : for numbers the distance in the target's unit; for classes 1 - probability of the actual class,
        from 0 (certain and right) to 1 (certain and wrong).
    """

    prediction_id: str
    key: str | None
    prediction: Any
    probability: float | None
    actual: Any
    error: float


@dataclass(frozen=True, slots=True)
class WorstPredictions:
    """The worst predictions of a version.

    looked_at : number of labelled rows read. since, until : the hours read; None without outcomes.
    """

    rows: list[WorstPrediction]
    looked_at: int
    since: dt.datetime | None = None
    until: dt.datetime | None = None


def of_version(version: ModelVersion, since: dt.datetime, until: dt.datetime) -> WorstPredictions:
    """Returns the `SHOWN` worst predictions of a version in the window, the worst first."""
    known = QualityHour.objects.filter(version=version, hour__gte=since, hour__lt=until, rows__gt=0)
    hours: list[dt.datetime] = []
    rows = 0
    for hour, labelled_rows in known.order_by("-hour").values_list("hour", "rows")[:HOURS]:
        hours.append(hour)
        rows += labelled_rows
        if rows >= ROWS:
            break
    if not hours:
        return WorstPredictions([], 0)
    first, last = hours[-1], hours[0] + HOUR
    labelled = _labelled(version, lowest_at(first), lowest_at(last))
    classes = classes_of(version)
    compared = [_with_error(row, None if classes is None else classes[1]) for row in labelled]
    wrong = [row for row in compared if row is not None and row.error > 0]
    return WorstPredictions(
        heapq.nlargest(SHOWN, wrong, key=lambda row: row.error), len(labelled), first, last
    )


def _labelled(version: ModelVersion, lowest: uuid.UUID, end: uuid.UUID) -> list[tuple[Any, ...]]:
    """Returns the version's newest labelled rows with lowest <= id < end, at most `ROWS`, among the newest
    `MAX_OUTCOMES_READ` outcomes."""
    labelled: list[tuple[Any, ...]] = []
    highest = uuid.UUID(int=end.int - 1)
    with connection.cursor() as cursor:
        for _ in range(MAX_OUTCOMES_READ // ROWS):
            cursor.execute(_PIECE, [version.registered_model_id, lowest, highest, ROWS, version.pk])
            piece = cursor.fetchall()
            labelled += [row for row in piece if row[2] is not None]
            if len(piece) < ROWS or len(labelled) >= ROWS:
                break
            cursor.execute(_NEXT, [version.pk, lowest, piece[-1][0]])
            following = cursor.fetchone()
            if following is None:
                break
            highest = following[0]
    return labelled[:ROWS]


def _with_error(row: tuple[Any, ...], positive: Any) -> WorstPrediction | None:
    """Returns the row with its error; None if answer and outcome are not comparable.

    positive : the class of the probability; None if the probability is that of the answer.
    """
    prediction_id, key, prediction_json, probability, actual_json = row
    prediction, actual = msgspec.json.decode(prediction_json), msgspec.json.decode(actual_json)
    if probability is None:
        numbers = all(type(each) in (int, float) for each in (prediction, actual))
        if not numbers and type(prediction) is not type(actual):
            return None
        error = abs(prediction - actual) if numbers else float(prediction != actual)
    elif positive is not None:
        error = abs(probability - float(actual == positive))
    else:
        error = 1 - probability if prediction == actual else probability
    return WorstPrediction(str(prediction_id), key, prediction, probability, actual, float(error))
