"""Metrics read from the database at each scrape, correct for any number of processes and machines.

Every query reads an index or a table of a few rows; the rows counted at scrape time are bounded.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import uuid
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from django.db import connection
from django.db.models import Count, Max, Min, Q, Sum
from django.utils import timezone
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from core.metrics.definitions import TABLE
from core.models import Event
from core.uuid7 import time_of
from predictions.models import Batch, DriftReview, LogExport, Replay, Verdict
from predictions.quality import realised
from predictions.rollups import counting
from training.models import Comparison, Job, RegisteredModel, TrainingRun, serving_versions
from training.registry import declarations, disk_use
from vigia_ml.declaration import SMALLER_IS_BETTER
from web.errors import DATABASE_AWAY

logger = logging.getLogger(__name__)

KINDS: Final[dict[str, type[Job]]] = {
    "training_run": TrainingRun,
    "comparison": Comparison,
    "replay": Replay,
    "batch": Batch,
    "log_export": LogExport,
}
MOST_WAITING: Final = 10_000
RECENT: Final = 100
"""Number of jobs with the highest ids, recounted each time: a lower id may be committed later."""
SEVERITY: Final[dict[str, int]] = {Verdict.DRIFT: 2, Verdict.NOTICE: 1}

# One index look-up for each model with a schedule; without a schedule, a model has on-demand reviews only.
_LAST_REVIEWS: Final = """
    SELECT review.id FROM training_registeredmodel model
    CROSS JOIN LATERAL (
        SELECT id FROM predictions_driftreview
        WHERE registered_model_id = model.id AND scheduled
        ORDER BY until DESC, id DESC LIMIT 1
    ) review
    WHERE model.review_hours > 0 AND model.archived_at IS NULL
    UNION ALL
    SELECT review.id FROM training_registeredmodel model
    CROSS JOIN LATERAL (
        SELECT newest.id FROM predictions_driftreview newest
        JOIN training_modelversion version ON version.id = newest.version_id
        WHERE newest.registered_model_id = model.id
        ORDER BY version.status = 'active' DESC, newest.until DESC, newest.id DESC LIMIT 1
    ) review
    WHERE model.review_hours = 0 AND model.archived_at IS NULL
"""
"""The last scheduled review of each model: on-demand reviews of an hour or of a retired version do not move
alerts. A model without a schedule has its last review, one of the active version first."""
_LOG: Final = """
    SELECT model.id,
        (SELECT id FROM predictions_prediction WHERE registered_model_id = model.id ORDER BY id DESC LIMIT 1),
        (SELECT id FROM predictions_prediction WHERE registered_model_id = model.id ORDER BY id LIMIT 1),
        (SELECT count(*) FROM (
            SELECT FROM predictions_outcome
            WHERE registered_model_id = model.id AND prediction_id IS NULL LIMIT %s
        ) waiting)
    FROM training_registeredmodel model
"""
"""The newest and the oldest row of each model's log, and the number of outcomes that wait for their row."""


_SUBSCRIPTIONS: Final = """
    SELECT subscription.id::text, coalesce(state.delivered, 0), coalesce(state.failed, 0),
        pending.count, dead.count,
        coalesce(extract(epoch FROM clock_timestamp() - first.created_at), 0)::float
            - 60 * subscription.digest_minutes
    FROM core_subscription subscription
    LEFT JOIN core_subscriptionstate state ON state.subscription_id = subscription.id
    CROSS JOIN LATERAL (SELECT count(*) FROM (
        SELECT FROM core_delivery
        WHERE subscription_id = subscription.id AND state = 'pending' LIMIT %(most)s
    ) found) pending
    CROSS JOIN LATERAL (SELECT count(*) FROM (
        SELECT FROM core_delivery
        WHERE subscription_id = subscription.id AND state = 'dead' LIMIT %(most)s
    ) found) dead
    LEFT JOIN LATERAL (
        SELECT created_at FROM core_delivery
        WHERE subscription_id = subscription.id AND state = 'pending' AND subscription.enabled
        ORDER BY position LIMIT 1
    ) first ON true
"""


class Families:
    """The metric families of one scrape, built from the table of metrics."""

    def __init__(self) -> None:
        self.by_name: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}

    def add(self, name: str, labels: Iterable[str], value: float | None) -> None:
        """Adds one series; without a value (None) there is none."""
        if value is None:
            return
        family = self.by_name.get(name)
        if family is None:
            known = TABLE[name]
            make = CounterMetricFamily if known.kind == "counter" else GaugeMetricFamily
            family = self.by_name[name] = make(name, known.meaning, labels=known.labels)
        family.add_metric(list(labels), value)


def collect() -> Iterable[Metric]:
    """Returns the metrics of the database; without a database, `vigia_database_up` 0 alone."""
    families, up = Families(), True
    try:
        for part in (_jobs, _versions, _reviews, _log, _stored, _events):
            part(families)
    except DATABASE_AWAY as error:
        logger.warning("metrics of the database are missing: %s", error)
        families, up = Families(), False
    families.add("vigia_database_up", (), up)
    return families.by_name.values()


# -- jobs ----------------------------------------------------------------------------------------------

Counts = Counter[tuple[str, str]]
_finished: dict[str, tuple[int, Counts]] = {}
_counting = threading.Lock()


def _jobs(families: Families) -> None:
    names = dict(RegisteredModel.objects.values_list("pk", "name"))
    for kind, job in KINDS.items():
        counts = _count_jobs(kind, job, names)
        for name in names.values():
            for status in Job.Status.values:
                families.add("vigia_jobs", (kind, name, status), counts[name, status])


def _count_jobs(kind: str, job: type[Job], names: dict[int, str]) -> Counts:
    """Returns the number of jobs by (model, status).

    A finished job never changes, so this process counts jobs below the first unfinished one once; the rest
    is read by the primary key."""
    rows = job._default_manager.order_by()
    unfinished = rows.filter(status__in=[Job.Status.QUEUED, Job.Status.RUNNING])
    edge = rows.aggregate(last=Max("pk"))["last"] or 0
    first = unfinished.aggregate(first=Min("pk"))["first"]
    settled = max(0, min(edge - RECENT, (first if first is not None else edge + 1) - 1))
    with _counting:
        upto, before = _finished.get(kind, (0, Counter()))
        if edge < upto:  # the database was replaced, or the table emptied
            upto, before = 0, Counter()
        if settled > upto:
            before = before + _by_status(rows.filter(pk__gt=upto, pk__lte=settled), names)
            upto = settled
        _finished[kind] = upto, before
    return before + _by_status(rows.filter(pk__gt=upto), names)


def _by_status(rows: Any, names: dict[int, str]) -> Counts:
    grouped = rows.values_list("registered_model_id", "status").annotate(Count("pk"))
    return Counter({(names.get(model, ""), status): jobs for model, status, jobs in grouped})


# -- versions, reviews ---------------------------------------------------------------------------------


def _versions(families: Families) -> None:
    now = timezone.now()
    active = serving_versions()
    for name, number, engine, created_at in active.values_list(
        "registered_model__name", "number", "engine", "created_at"
    ):
        families.add("vigia_active_version", (name,), number)
        families.add("vigia_active_version_info", (name, str(number), engine), 1)
        families.add("vigia_active_version_age_seconds", (name,), (now - created_at).total_seconds())


def _reviews(families: Families) -> None:
    now = timezone.now()
    kept = RegisteredModel.objects.filter(archived_at=None)
    for name, hours in kept.values_list("name", "review_hours"):
        families.add("vigia_review_interval_seconds", (name,), hours * 3600 if hours else None)
    with connection.cursor() as cursor:
        cursor.execute(_LAST_REVIEWS)
        last = [pk for (pk,) in cursor.fetchall()]
    reviews = (
        DriftReview.objects.filter(pk__in=last)
        .select_related("registered_model", "version")
        .defer("version__schema", "version__evaluation")
    )
    for review in reviews:
        name, version = review.registered_model.name, str(review.version.number)
        families.add("vigia_review_age_seconds", (name,), (now - review.created_at).total_seconds())
        families.add("vigia_review_rows", (name,), review.rows)
        for verdict in Verdict.values:
            families.add("vigia_review_verdict", (name, version, verdict), verdict == review.verdict)
        for column, score, verdict in review.findings.values_list("column", "adjusted_psi", "verdict"):
            families.add("vigia_drift_score", (name, version, column), score)
            families.add("vigia_drift_verdict", (name, version, column), SEVERITY.get(verdict, 0))
        _quality(families, review, name, version)


def _quality(families: Families, review: DriftReview, name: str, version: str) -> None:
    """Adds the quality of the reviewed version; metrics that its declaration does not name are left out."""
    declared = declarations.find(review.registered_model)
    if declared is None:
        return
    for part in review.quality or []:
        if part["version"] != review.version.number:
            continue
        families.add("vigia_quality_coverage", (name, version), part.get("coverage"))
        watched = realised.watched_metric(review.registered_model, part["metrics"])
        for metric in declared.metrics:
            labels = (name, version, metric)
            here, there = _value(part["metrics"].get(metric)), _value(part["holdout"].get(metric))
            families.add("vigia_quality", labels, here)
            families.add("vigia_quality_holdout", labels, there)
            if metric == watched and here is not None:
                families.add("vigia_quality_fall_ratio", labels, fall(metric, here, there) if there else None)
                families.add("vigia_quality_fell", labels, part.get("fell"))
    expected = (review.expected or {}).get("metrics") or {}
    for metric in declared.metrics:
        families.add("vigia_quality_expected", (name, version, metric), _value(expected.get(metric)))


def fall(metric: str, here: float, there: float) -> float:
    """Returns how much worse a metric is `here`, as a share of its value `there` (not 0)."""
    worse = here - there if metric in SMALLER_IS_BETTER else there - here
    return worse / abs(there)


def _value(metric: Any) -> float | None:
    """Returns the value of a metric: a plain number, or an estimate with its interval."""
    if isinstance(metric, dict):
        metric = metric.get("value")
    return float(metric) if isinstance(metric, (int, float)) else None


# -- the store -----------------------------------------------------------------------------------------


def _stored(families: Families) -> None:
    for use in disk_use.by_model():
        families.add("vigia_stored_bytes", (use.model, "artifacts"), use.artifacts)
        families.add("vigia_stored_bytes", (use.model, "datasets"), use.datasets)
    uploads = Sum("source_size", filter=~Q(source_name=""), default=0)
    for kind, jobs, size in (
        ("batches", Batch, uploads + Sum("result_bytes")),
        ("exports", LogExport, Sum("size")),
    ):
        of_models = jobs.objects.filter(removed_at=None).order_by().values_list("registered_model__name")
        for model, total in of_models.annotate(total=size):
            families.add("vigia_stored_bytes", (model, kind), total)


# -- events --------------------------------------------------------------------------------------------


def _events(families: Families) -> None:
    oldest = Event.objects.filter(position=None).order_by("pk").values_list("at", flat=True).first()
    age = 0.0 if oldest is None else (timezone.now() - oldest).total_seconds()
    families.add("vigia_events_unplaced_seconds", (), max(age, 0.0))
    with connection.cursor() as cursor:
        cursor.execute(_SUBSCRIPTIONS, {"most": MOST_WAITING})
        for subscription, delivered, failed, pending, dead, overdue in cursor.fetchall():
            labels = (subscription,)
            families.add("vigia_events_delivered_total", labels, delivered)
            families.add("vigia_events_failed_total", labels, failed)
            families.add("vigia_events_pending", labels, pending)
            families.add("vigia_events_dead", labels, dead)
            families.add("vigia_events_overdue_seconds", labels, max(overdue, 0.0))


# -- the log -------------------------------------------------------------------------------------------


def _log(families: Families) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_LOG, [MOST_WAITING])
        rows = {pk: figures for pk, *figures in cursor.fetchall()}
    for model in RegisteredModel.objects.filter(pk__in=rows):
        newest, oldest, waiting = rows[model.pk]
        counted = None if newest is None else counting.counted_to(model)
        families.add("vigia_rollup_lag_seconds", (model.name,), lag(newest, oldest, counted))
        families.add("vigia_outcomes_waiting", (model.name,), waiting)


def lag(newest: uuid.UUID | None, oldest: uuid.UUID | None, counted_to: dt.datetime | None) -> float:
    """Returns the seconds from the last counted row to the newest row of the log."""
    if newest is None or oldest is None:
        return 0.0
    counted = time_of(oldest) if counted_to is None else counted_to
    return max(0.0, (time_of(newest) - counted).total_seconds())
