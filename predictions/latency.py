"""How long requests for predictions took, by model and hour, kept in the database for the admin.

Prometheus keeps the same histogram at a finer grain for as long as it is told to; this table is what the
dashboard reads without it. Each process adds its numbers up and writes them every `WRITE_SECONDS`.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Iterable, Sequence
from typing import Final, TypedDict

from django.db import DatabaseError, InterfaceError, connection
from django.db.models import Sum

from core.metrics.counters import BOUNDS, BUCKETS
from predictions.models import AnswerTime

logger = logging.getLogger(__name__)

WRITE_SECONDS: Final = 15.0
KEPT: Final = 20_000
"""Numbers that may wait for a database that is away: a model has at most 20 an hour. Beyond, the oldest hours
are dropped, and said so."""
_HOUR: Final = 3600

_ADD: Final = """
    INSERT INTO predictions_answertime (registered_model_id, hour, bucket, requests)
    SELECT given.* FROM unnest(%s::bigint[], %s::timestamptz[], %s::smallint[], %s::bigint[]) AS given (model)
    WHERE EXISTS (SELECT FROM training_registeredmodel WHERE id = given.model)
    ON CONFLICT (registered_model_id, hour, bucket)
    DO UPDATE SET requests = predictions_answertime.requests + excluded.requests
"""

Numbers = dict[tuple[int, int, int], int]
"""(model id, Unix seconds of the hour, bucket) -> requests."""


class LatencyRecorder:
    """What this process has not written yet.

    `add` waits for nobody; `write` is for one thread at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: Numbers = {}
        self._away = False

    def add(self, model_id: int, buckets: Sequence[int], at: float) -> None:
        """Requests by bucket (`BUCKETS`,), answered in the hour of `at` (Unix seconds)."""
        hour = int(at) // _HOUR * _HOUR
        with self._lock:
            for bucket, requests in enumerate(buckets):
                if requests:
                    key = (model_id, hour, bucket)
                    self._numbers[key] = self._numbers.get(key, 0) + requests
            if len(self._numbers) > KEPT:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest = sorted(self._numbers, key=lambda key: key[1])
        for key in oldest[: len(oldest) - KEPT]:
            del self._numbers[key]
        logger.warning("answer times of %d hours and models were dropped", len(oldest) - KEPT)

    @property
    def waiting(self) -> int:
        """Requests that are not written yet."""
        with self._lock:
            return sum(self._numbers.values())

    def write(self) -> bool:
        """Adds all of it to the table; False, and it is kept, when the database cannot be asked.

        The connection is given up afterwards: a process needs it for a moment every `WRITE_SECONDS`.
        """
        with self._lock:
            numbers, self._numbers = self._numbers, {}
        if not numbers:
            return True
        try:
            _write(numbers)
        except (DatabaseError, InterfaceError) as error:
            if not self._away:
                logger.warning("answer times wait for the database: %s", error)
            self._away = True
            with self._lock:
                for key, requests in numbers.items():
                    self._numbers[key] = self._numbers.get(key, 0) + requests
            return False
        finally:
            if not connection.in_atomic_block:
                connection.close()
        self._away = False
        return True


def _write(numbers: Numbers) -> None:
    # Ordered, so that two processes take their locks in the same order.
    keys = sorted(numbers)
    hours = [dt.datetime.fromtimestamp(hour, dt.UTC) for _, hour, _ in keys]
    with connection.cursor() as cursor:
        cursor.execute(
            _ADD,
            [[key[0] for key in keys], hours, [key[2] for key in keys], [numbers[key] for key in keys]],
        )


_recorder = LatencyRecorder()


def recorder() -> LatencyRecorder:
    """This process's."""
    return _recorder


class Quantiles(TypedDict):
    """requests : answered. p50, p99 : seconds."""

    requests: int
    p50: float
    p99: float


def quantiles(model_ids: Iterable[int], since: dt.datetime, until: dt.datetime) -> dict[int, Quantiles]:
    """Median and 99th percentile of the answer times, by model; models without a request are left out.

    Estimated from buckets: within one, requests count as spread evenly between its bounds (linear
    interpolation, as Prometheus' `histogram_quantile` has it), so an estimate is as fine as the buckets.
    What took longer than the last bound counts as that bound.

    Parameters
    ----------
    since, until : whole hours; the hour `since` lies in counts, the one that begins at `until` does not.
    """
    first = since.replace(minute=0, second=0, microsecond=0)
    rows = (
        AnswerTime.objects.filter(registered_model_id__in=list(model_ids), hour__gte=first, hour__lt=until)
        .values_list("registered_model_id", "bucket")
        .annotate(Sum("requests"))
    )
    buckets: dict[int, list[int]] = {}
    for model_id, bucket, requests in rows:
        buckets.setdefault(model_id, [0] * BUCKETS)[bucket] += requests
    return {
        model_id: Quantiles(requests=sum(found), p50=quantile(found, 0.5), p99=quantile(found, 0.99))
        for model_id, found in buckets.items()
    }


def quantile(buckets: Sequence[int], share: float) -> float:
    """The time (seconds) below which `share` of the requests were answered; see `quantiles`.

    Parameters
    ----------
    buckets : requests (`BUCKETS`,), at least one in all.
    """
    wanted = share * sum(buckets)
    below = 0
    for place, (upper, requests) in enumerate(zip(BOUNDS, buckets, strict=False)):
        if requests and below + requests >= wanted:
            lower = BOUNDS[place - 1] if place else 0.0
            return lower + (upper - lower) * (wanted - below) / requests
        below += requests
    return BOUNDS[-1]
