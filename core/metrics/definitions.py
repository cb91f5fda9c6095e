"""The table of all metrics of `/metrics`: name, type, labels, meaning. docs/metrics.md documents them.

An application adds its own with `register` in `AppConfig.ready`, before anything is counted or exposed, and
counts them with `core.metrics.counters.count`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of series.

    Parameters
    ----------
    name : as it is exposed; a counter's ends with ``_total``, a histogram's has no ``_bucket``.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str


TABLE: Final[dict[str, Metric]] = {}


def register(metrics: Iterable[Metric]) -> None:
    """Adds metrics to the table.

    Raises
    ------
    ValueError : the name is registered already, or does not follow the rules of its type.
    """
    for metric in metrics:
        if metric.name in TABLE:
            raise ValueError(f"{metric.name} is registered already: choose another name")
        if (metric.kind == "counter") != metric.name.endswith("_total"):
            raise ValueError(f"{metric.name}: counters, and no other metrics, end with _total")
        TABLE[metric.name] = metric


def _metric(kind: Kind, name: str, labels: str, meaning: str) -> None:
    register([Metric(name, kind, tuple(labels.split()), meaning)])


_counter = partial(_metric, "counter")
_gauge = partial(_metric, "gauge")
_histogram = partial(_metric, "histogram")

_counter("vigia_requests_total", "route method status", "Answered HTTP requests, refusals included.")
_counter("vigia_refusals_total", "code", "Refused requests by error code.")
_counter("vigia_validation_errors_total", "code", "Faults named in refusals (at most 100 each), by code.")
_histogram(
    "vigia_prediction_seconds",
    "model",
    "Time from a complete request for predictions to its answer, commit included.",
)
_counter("vigia_batch_rows_total", "model result", "Rows of batches, scored (and logged) or invalid.")
_counter(
    "vigia_predictions_total", "model version class", "Answered instances; class is empty for a regression."
)
_counter("vigia_log_rows_total", "", "Rows committed in the prediction log.")
_counter("vigia_log_commits_total", "", "Statements that committed rows of the prediction log.")
_counter(
    "vigia_log_failures_total",
    "reason",
    "Groups of rows that failed to commit, and requests refused because the queue was full.",
)
_gauge("vigia_log_queue_rows", "", "Rows waiting for their commit, in all processes.")
_gauge("vigia_log_queue_limit_rows", "", "Capacity of the queues in rows, in all processes.")
_gauge("vigia_shadow_queue_rows", "", "Rows waiting for a shadow, in all processes.")
_gauge("vigia_web_processes", "", "Running web processes.")
_counter("vigia_tasks_total", "task result", "Ended Celery tasks.")
_gauge("vigia_database_up", "", "1 when the database answered this scrape.")
_gauge("vigia_ready", "", "1 when predictions can be answered.")
_gauge("vigia_degraded", "check", "1 when the check finds a problem, 0 when it finds none.")
_gauge("vigia_jobs", "kind model status", "Jobs (training runs, comparisons, replays, log exports) by state.")
_gauge("vigia_active_version", "model", "Number of the active version.")
_gauge("vigia_stored_bytes", "model kind", "Bytes of a model in the store, by kind of file.")
_gauge("vigia_active_version_info", "model version engine", "1 for the active version.")
_gauge("vigia_active_version_age_seconds", "model", "Seconds since the active version was trained.")
_gauge(
    "vigia_review_verdict",
    "model version verdict",
    "1 for the verdict of the last drift review, 0 for the others.",
)
_gauge("vigia_review_age_seconds", "model", "Seconds since the last drift review.")
_gauge(
    "vigia_review_interval_seconds",
    "model",
    "Time between scheduled drift reviews; models without a schedule are left out.",
)
_gauge("vigia_review_rows", "model", "Rows in the window of the last drift review.")
_gauge(
    "vigia_drift_score",
    "model version column",
    "Adjusted population stability index of a column in the last drift review.",
)
_gauge(
    "vigia_drift_verdict",
    "model version column",
    "Verdict on the column: 0 insufficient or stable, 1 notice, 2 drift.",
)
_gauge("vigia_quality", "model version metric", "Realised quality in the window of the last drift review.")
_gauge(
    "vigia_quality_holdout",
    "model version metric",
    "The same metric on the hold-out when the version was trained.",
)
_gauge(
    "vigia_quality_expected",
    "model version metric",
    "Expected quality in the last drift review, estimated without outcomes.",
)
_gauge(
    "vigia_quality_fall_ratio",
    "model version metric",
    "How much worse the watched metric is, as a share of its hold-out value; negative: better.",
)
_gauge(
    "vigia_quality_fell",
    "model version metric",
    "1 when the watched metric has become significantly worse in the last drift review, else 0.",
)
_gauge("vigia_quality_coverage", "model version", "Share of the window's predictions whose outcome is known.")
_gauge(
    "vigia_rollup_lag_seconds",
    "model",
    "Seconds from the last row counted for drift reviews to the newest row of the log.",
)
_gauge("vigia_events_unplaced_seconds", "", "Age of the oldest event that no dispatcher has placed; 0: none.")
_gauge("vigia_events_pending", "subscription", "Events waiting for delivery; counted up to 10,000.")
_gauge(
    "vigia_events_overdue_seconds",
    "subscription",
    "Seconds since the first waiting event of an enabled subscription was due for the first time; 0: none.",
)
_gauge("vigia_events_dead", "subscription", "Dead letters; counted up to 10,000.")
_counter("vigia_events_delivered_total", "subscription", "Delivered messages.")
_counter("vigia_events_failed_total", "subscription", "Messages of failed attempts.")
_gauge("vigia_outcomes_waiting", "model", "Outcomes that wait for their prediction; counted up to 10,000.")
