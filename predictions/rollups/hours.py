"""Hours of a model's log, by which rollups and realised quality are kept.

The figures of an hour stay when the log holds no row of the hour any more, or when its month was removed: a
row that is added later must not replace them.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Final

from django.db.models import DateTimeField, Exists, ExpressionWrapper, OuterRef, QuerySet
from django.db.models.functions import TruncMonth
from django.utils import timezone

from core.uuid7 import EPOCH, lowest_at
from predictions.models import Prediction, RemovedMonth

HOUR: Final = dt.timedelta(hours=1)
_MONTH: Final = TruncMonth(ExpressionWrapper(OuterRef("hour"), DateTimeField()), tzinfo=dt.UTC)
NOT_REMOVED: Final = ~Exists(RemovedMonth.objects.filter(start=_MONTH))
"""Condition on the `hour` of a row: retention has not removed its month."""


def floor(moment: dt.datetime, step: dt.timedelta = HOUR) -> dt.datetime:
    """Returns the beginning of a step, counted from 1970, so that a day begins at midnight in UTC."""
    return EPOCH + (moment - EPOCH) // step * step


def ceiling(moment: dt.datetime, step: dt.timedelta = HOUR) -> dt.datetime:
    """Returns the end of the first step that ends at `moment` or later."""
    return EPOCH - (EPOCH - moment) // step * step


def whole(since: dt.datetime, until: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """Returns the window widened to whole hours, up to the end of the present hour."""
    # The end is cut before it is rounded up: an hour after the year 9999 does not exist.
    return floor(since), ceiling(min(until, floor(timezone.now()) + HOUR))


def end(hour: dt.datetime) -> uuid.UUID:
    """Returns the lowest id after an hour."""
    return lowest_at(hour + HOUR)


def logged(model_id: int, low: uuid.UUID, high: uuid.UUID) -> QuerySet[Prediction, Prediction]:
    """Returns the model's rows of the log with low <= id < high, ascending."""
    return Prediction.objects.filter(registered_model_id=model_id, id__gte=low, id__lt=high).order_by("id")


def is_removed(hour: dt.datetime) -> bool:
    """Returns whether retention has removed the hour's month."""
    return RemovedMonth.objects.filter(start=hour.replace(day=1, hour=0)).exists()


def is_in_log(model_id: int, hour: dt.datetime) -> bool:
    """Returns whether the log holds rows of an hour of the model, and its month was not removed."""
    return logged(model_id, lowest_at(hour), end(hour)).exists() and not is_removed(hour)
