"""Latency of prediction requests by model and hour, stored in the database for the admin.

Prometheus keeps the same histogram at a finer grain for its configured retention; the dashboard reads this
table, so it works without Prometheus. Each process sums its counts and writes them every `WRITE_SECONDS`.
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
MAX_PENDING: Final = 20_000
"""Number of counts that wait while the database is unreachable; a model has at most 20 an hour. Beyond it,
the oldest hours are dropped with a warning in the log."""
_HOUR: Final = 3600

_ADD: Final = """
    INSERT INTO predictions_answertime (registered_model_id, hour, bucket, requests)
    SELECT added.* FROM unnest(%s::bigint[], %s::timestamptz[], %s::smallint[], %s::bigint[]) AS added (model)
    WHERE EXISTS (SELECT FROM training_registeredmodel WHERE id = added.model)
    ON CONFLICT (registered_model_id, hour, bucket)
    DO UPDATE SET requests = predictions_answertime.requests + excluded.requests
"""

Numbers = dict[tuple[int, int, int], int]
"""(model id, Unix seconds of the hour, bucket) -> requests."""


class LatencyRecorder:
    """The counts that this process has not written yet.

    `add` never waits for the database; one thread at a time may call `write`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: Numbers = {}
        self._database_down = False

    def add(self, model_id: int, buckets: Sequence[int], at: float) -> None:
        """Adds requests by bucket (`BUCKETS`,) that were answered in the hour of `at` (Unix seconds)."""
        hour = int(at) // _HOUR * _HOUR
        with self._lock:
            for bucket, requests in enumerate(buckets):
                if requests:
                    key = (model_id, hour, bucket)
                    self._numbers[key] = self._numbers.get(key, 0) + requests
            if len(self._numbers) > MAX_PENDING:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest = sorted(self._numbers, key=lambda key: key[1])
        for key in oldest[: len(oldest) - MAX_PENDING]:
            del self._numbers[key]
        logger.warning("dropped %d latency counts of the oldest hours", len(oldest) - MAX_PENDING)

    @property
    def waiting(self) -> int:
        """Number of requests that are not written yet."""
        with self._lock:
            return sum(self._numbers.values())

    def write(self) -> bool:
        """Adds the counts to the table; keeps them and returns False if the database is unreachable.

        The connection is closed afterwards: a process needs it for a moment every `WRITE_SECONDS`.
        """
        with self._lock:
            numbers, self._numbers = self._numbers, {}
        if not numbers:
            return True
        try:
            _write(numbers)
        except (DatabaseError, InterfaceError) as error:
            if not self._database_down:
                logger.warning("latency counts wait for the database: %s", error)
            self._database_down = True
            with self._lock:
                for key, requests in numbers.items():
                    self._numbers[key] = self._numbers.get(key, 0) + requests
            return False
        finally:
            if not connection.in_atomic_block:
                connection.close()
        self._database_down = False
        return True


def _write(numbers: Numbers) -> None:
    # Sorted, so that all processes take the row locks in the same order.
    keys = sorted(numbers)
    hours = [dt.datetime.fromtimestamp(hour, dt.UTC) for _, hour, _ in keys]
    with connection.cursor() as cursor:
        cursor.execute(
            _ADD,
            [[key[0] for key in keys], hours, [key[2] for key in keys], [numbers[key] for key in keys]],
        )


_recorder = LatencyRecorder()


def recorder() -> LatencyRecorder:
    """Returns this process's recorder."""
    return _recorder


class Quantiles(TypedDict):
    """requests : number of answered requests. p50, p99 : latency in seconds."""

    requests: int
    p50: float
    p99: float


def quantiles(model_ids: Iterable[int], since: dt.datetime, until: dt.datetime) -> dict[int, Quantiles]:
    """Returns median and 99th percentile of the latency by model; models without requests are left out.

    The buckets give the estimate: requests of one bucket count as spread evenly between its bounds (linear
    interpolation, as Prometheus' `histogram_quantile` does), so an estimate is as fine as the buckets.
    A request that took longer than the last bound counts as that bound.

    Parameters
    ----------
    since, until : whole hours; the hour of `since` is included, the hour that begins at `until` is not.
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
        model_id: Quantiles(requests=sum(counts), p50=quantile(counts, 0.5), p99=quantile(counts, 0.99))
        for model_id, counts in buckets.items()
    }


def quantile(buckets: Sequence[int], share: float) -> float:
    """Returns the time (seconds) within which `share` of the requests were answered; see `quantiles`.

    Parameters
    ----------
    buckets : requests (`BUCKETS`,), at least one in all.
    """
    rank = share * sum(buckets)
    below = 0
    for place, (upper, requests) in enumerate(zip(BOUNDS, buckets, strict=False)):
        if requests and below + requests >= rank:
            lower = BOUNDS[place - 1] if place else 0.0
            return lower + (upper - lower) * (rank - below) / requests
        below += requests
    return BOUNDS[-1]
