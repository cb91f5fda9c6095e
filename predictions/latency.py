"""Latency of prediction requests by model and hour, stored in the database for the admin.

Prometheus keeps the same histogram at a finer grain for its configured retention. The dashboard reads this
table instead, so it works without Prometheus and covers all machines and restarts. Every `WRITE_SECONDS` each
process adds the growth of its histogram.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypedDict

from django.db import Error, connection
from django.db.models import Sum

from core.metrics.counters import BOUNDS, BUCKETS
from predictions.models import AnswerTime

if TYPE_CHECKING:  # every process imports this module; the client must follow `multiprocess_dir.begin`
    from prometheus_client import CollectorRegistry

logger = logging.getLogger(__name__)

WRITE_SECONDS: Final = 15.0

# Ordered, so that all processes take the row locks in the same order.
_ADD: Final = """
    INSERT INTO predictions_answertime (registered_model_id, hour, bucket, requests)
    SELECT model.id, date_trunc('hour', now()), added.bucket, added.requests
    FROM unnest(%s::text[], %s::smallint[], %s::bigint[]) AS added (name, bucket, requests)
    JOIN training_registeredmodel model USING (name)
    ORDER BY model.id, added.bucket
    ON CONFLICT (registered_model_id, hour, bucket)
    DO UPDATE SET requests = predictions_answertime.requests + excluded.requests
"""


class LatencyRecorder:
    """Adds to the table what this process has counted in `vigia_prediction_seconds`.

    Counts that could not be written go to the hour of a later call. They are few: without the database no
    request is answered, so at most the requests of `WRITE_SECONDS` wait.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._histogram = registry.restricted_registry(["vigia_prediction_seconds_bucket"])
        self._written: Counter[tuple[str, int]] = Counter()
        self._database_down = False

    def _requests(self) -> Counter[tuple[str, int]]:
        """Returns the number of requests since the start of this process by (model, bucket)."""
        upto: dict[str, list[int]] = {}
        for family in self._histogram.collect():
            for sample in family.samples:
                upto.setdefault(sample.labels["model"], [0]).append(int(sample.value))
        return Counter(
            {
                (model, bucket): last - first
                for model, counts in upto.items()
                for bucket, (first, last) in enumerate(pairwise(counts))
            }
        )

    def write(self) -> bool:
        """Adds the new counts to the table; returns False if the database is unreachable.

        The connection is closed afterwards: a process needs it for a moment every `WRITE_SECONDS`.
        """
        requests = self._requests()
        new = requests - self._written
        if not new:
            return True
        try:
            with connection.cursor() as cursor:
                columns = [*zip(*new, strict=True), new.values()]
                cursor.execute(_ADD, [list(column) for column in columns])
        except Error as error:
            if not self._database_down:
                logger.warning("latency counts wait for the database: %s", error)
            self._database_down = True
            return False
        finally:
            if not connection.in_atomic_block:
                connection.close()
        self._written, self._database_down = requests, False
        return True


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
