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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from core.uuid7 import lowest_at
from predictions.models import Prediction, QualityHour, decoded
from predictions.outcomes import labelled_rows
from predictions.outcomes.labelled_rows import Labelled
from predictions.quality.sql import classes_of
from predictions.rollups.hours import HOUR
from training.models import ModelVersion

ROWS: Final = 2_000
MAX_OUTCOMES_READ: Final = 10 * ROWS
"""Maximum number of outcomes to read, of all versions."""
HOURS: Final = 48
SHOWN: Final = 20


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
    for hour, rows_of_hour in known.order_by("-hour").values_list("hour", "rows")[:HOURS]:
        hours.append(hour)
        rows += rows_of_hour
        if rows >= ROWS:
            break
    if not hours:
        return WorstPredictions([], 0)
    first, last = hours[-1], hours[0] + HOUR
    labelled = _labelled(version, lowest_at(first), lowest_at(last))
    of_two = classes_of(version)
    classes = version.known_classes or ()
    compared = [_with_error(row, None if of_two is None else of_two[1], classes) for row in labelled]
    wrong = [row for row in compared if row is not None and row.error > 0]
    return WorstPredictions(
        heapq.nlargest(SHOWN, wrong, key=lambda row: row.error), len(labelled), first, last
    )


def _labelled(version: ModelVersion, low: uuid.UUID, high: uuid.UUID) -> list[Labelled]:
    """Returns the version's newest labelled rows with low <= id < high, at most `ROWS`, among the newest
    `MAX_OUTCOMES_READ` outcomes."""
    labelled: list[Labelled] = []
    answers = Prediction.objects.filter(version=version, id__gte=low).order_by("-id")
    for _ in range(MAX_OUTCOMES_READ // ROWS):
        pages = labelled_rows.pages(
            version.registered_model_id, low, high, inputs=False, size=ROWS, newest_first=True
        )
        page = next(pages, [])
        labelled += [row for row in page if row.version_id == version.pk]
        if len(page) < ROWS or len(labelled) >= ROWS:
            break
        following = answers.filter(id__lt=page[-1].prediction_id).values_list("id", flat=True).first()
        if following is None:
            break
        high = uuid.UUID(int=following.int + 1)
    return labelled[:ROWS]


def _with_error(row: Labelled, positive: Any, classes: Sequence[Any]) -> WorstPrediction | None:
    """Returns the row with its error; None if answer and outcome are not comparable.

    positive : the class of the probability; None if the probability is that of the answer.
    classes : in the order of `Labelled.by_class`.
    """
    prediction, actual = decoded([row.prediction, row.actual])
    if row.probability is None:
        numbers = all(type(each) in (int, float) for each in (prediction, actual))
        if not numbers and type(prediction) is not type(actual):
            return None
        error = abs(prediction - actual) if numbers else float(prediction != actual)
    elif positive is not None:
        error = abs(row.probability - float(actual == positive))
    elif row.by_class is not None:
        [of_classes] = decoded([row.by_class])
        error = 1 - (of_classes[classes.index(actual)] if actual in classes else 0.0)
    else:
        error = 1 - row.probability if prediction == actual else row.probability
    return WorstPrediction(row.prediction_id, row.key, prediction, row.probability, actual, float(error))
