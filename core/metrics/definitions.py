"""The table of all metrics of `/metrics`: name, type, labels, meaning. docs/metrics.md documents them.

An application adds its own with `register` in `AppConfig.ready`, before anything is counted or exposed, and
counts them with `core.metrics.counters.count`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]
Source = Literal["web", "worker", "database", "health"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of series.

    Parameters
    ----------
    name : as it is exposed; a counter's ends with ``_total``, a histogram's has no ``_bucket``.
    source : the processes that count it (web, worker), or what a scrape reads it from (the database, the
        health checks).
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    source: Source = "web"


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


register(
    [
        Metric(
            "vigia_requests_total",
            "counter",
            ("route", "method", "status"),
            "Answered HTTP requests, refusals included.",
        ),
        Metric("vigia_refusals_total", "counter", ("code",), "Refused requests by error code."),
        Metric(
            "vigia_validation_errors_total",
            "counter",
            ("code",),
            "Faults named in refusals (at most 100 each), by code.",
        ),
        Metric(
            "vigia_prediction_seconds",
            "histogram",
            ("model",),
            "Time from a complete request for predictions to its answer, commit included.",
        ),
        Metric(
            "vigia_predictions_total",
            "counter",
            ("model", "version", "class"),
            "Answered instances; class is empty for a regression.",
        ),
        Metric("vigia_log_rows_total", "counter", (), "Rows committed in the prediction log."),
        Metric(
            "vigia_log_commits_total", "counter", (), "Statements that committed rows of the prediction log."
        ),
        Metric(
            "vigia_log_failures_total",
            "counter",
            ("reason",),
            "Groups of rows that failed to commit, and requests refused because the queue was full.",
        ),
        Metric("vigia_log_queue_rows", "gauge", (), "Rows waiting for their commit, in all processes."),
        Metric(
            "vigia_log_queue_limit_rows", "gauge", (), "Capacity of the queues in rows, in all processes."
        ),
        Metric("vigia_shadow_queue_rows", "gauge", (), "Rows waiting for a shadow, in all processes."),
        Metric("vigia_web_processes", "gauge", (), "Running web processes."),
        Metric("vigia_tasks_total", "counter", ("task", "result"), "Ended Celery tasks.", "worker"),
        Metric("vigia_database_up", "gauge", (), "1 when the database answered this scrape.", "database"),
        Metric("vigia_ready", "gauge", (), "1 when predictions can be answered.", "health"),
        Metric(
            "vigia_degraded",
            "gauge",
            ("check",),
            "1 when the check finds a problem, 0 when it finds none.",
            "health",
        ),
        Metric(
            "vigia_jobs",
            "gauge",
            ("kind", "model", "status"),
            "Jobs (training runs, comparisons, replays) by state.",
            "database",
        ),
        Metric("vigia_active_version", "gauge", ("model",), "Number of the active version.", "database"),
        Metric(
            "vigia_active_version_info",
            "gauge",
            ("model", "version", "engine"),
            "1 for the active version.",
            "database",
        ),
        Metric(
            "vigia_active_version_age_seconds",
            "gauge",
            ("model",),
            "Seconds since the active version was trained.",
            "database",
        ),
        Metric(
            "vigia_review_verdict",
            "gauge",
            ("model", "version", "verdict"),
            "1 for the verdict of the last drift review, 0 for the others.",
            "database",
        ),
        Metric(
            "vigia_review_age_seconds",
            "gauge",
            ("model",),
            "Seconds since the last drift review.",
            "database",
        ),
        Metric(
            "vigia_review_interval_seconds",
            "gauge",
            ("model",),
            "Time between scheduled drift reviews; models without a schedule are left out.",
            "database",
        ),
        Metric(
            "vigia_review_rows",
            "gauge",
            ("model",),
            "Rows in the window of the last drift review.",
            "database",
        ),
        Metric(
            "vigia_drift_score",
            "gauge",
            ("model", "version", "column"),
            "Adjusted population stability index of a column in the last drift review.",
            "database",
        ),
        Metric(
            "vigia_drift_verdict",
            "gauge",
            ("model", "version", "column"),
            "Verdict on the column: 0 insufficient or stable, 1 notice, 2 drift.",
            "database",
        ),
        Metric(
            "vigia_quality",
            "gauge",
            ("model", "version", "metric"),
            "Realised quality in the window of the last drift review.",
            "database",
        ),
        Metric(
            "vigia_quality_holdout",
            "gauge",
            ("model", "version", "metric"),
            "The same metric on the hold-out when the version was trained.",
            "database",
        ),
        Metric(
            "vigia_quality_expected",
            "gauge",
            ("model", "version", "metric"),
            "Expected quality in the last drift review, estimated without outcomes.",
            "database",
        ),
        Metric(
            "vigia_quality_fall_ratio",
            "gauge",
            ("model", "version", "metric"),
            "How much worse the watched metric is, as a share of its hold-out value; negative: better.",
            "database",
        ),
        Metric(
            "vigia_quality_fell",
            "gauge",
            ("model", "version", "metric"),
            "1 when the watched metric has become significantly worse in the last drift review, else 0.",
            "database",
        ),
        Metric(
            "vigia_quality_coverage",
            "gauge",
            ("model", "version"),
            "Share of the window's predictions whose outcome is known.",
            "database",
        ),
        Metric(
            "vigia_rollup_lag_seconds",
            "gauge",
            ("model",),
            "Seconds from the last row counted for drift reviews to the newest row of the log.",
            "database",
        ),
        Metric(
            "vigia_outcomes_waiting",
            "gauge",
            ("model",),
            "Outcomes that wait for their prediction; counted up to 10,000.",
            "database",
        ),
    ]
)
