"""Every metric of `/metrics`, once: name, type, labels, meaning. docs/metrics.md says the same to people.

An application above adds its own with `register` before anything is counted or exposed (its
`AppConfig.ready`), and counts them with `core.metrics.counters.count`.
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
    name : as it is exposed; of a counter with ``_total``, of a histogram without ``_bucket``.
    source : counted by each process of web or of the worker, or asked when somebody scrapes: of the database,
        or of the health checks.
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
    ValueError : the name is there already, or does not follow the rules of its type.
    """
    for metric in metrics:
        if metric.name in TABLE:
            raise ValueError(f"{metric.name} is there already")
        if (metric.kind == "counter") != metric.name.endswith("_total"):
            raise ValueError(f"{metric.name}: a counter, and nothing else, ends with _total")
        TABLE[metric.name] = metric


register(
    [
        Metric(
            "vigia_requests_total",
            "counter",
            ("route", "method", "status"),
            "HTTP requests that were answered, refusals included.",
        ),
        Metric("vigia_refusals_total", "counter", ("code",), "Refused requests by the code of the refusal."),
        Metric(
            "vigia_validation_errors_total",
            "counter",
            ("code",),
            "Faults that refusals named (at most 100 each), by code.",
        ),
        Metric(
            "vigia_prediction_seconds",
            "histogram",
            ("model",),
            "Time from a complete request for predictions to its answer, its commit included.",
        ),
        Metric(
            "vigia_predictions_total",
            "counter",
            ("model", "version", "class"),
            "Instances that were answered; class is empty for a regression.",
        ),
        Metric("vigia_log_rows_total", "counter", (), "Rows committed in the prediction log."),
        Metric("vigia_log_commits_total", "counter", (), "Statements that committed them."),
        Metric(
            "vigia_log_failures_total",
            "counter",
            ("reason",),
            "Groups of rows that were not committed, and requests the queue had no room for.",
        ),
        Metric("vigia_log_queue_rows", "gauge", (), "Rows that wait for their commit, in all processes."),
        Metric("vigia_log_queue_limit_rows", "gauge", (), "Rows for which there is room, in all processes."),
        Metric("vigia_shadow_queue_rows", "gauge", (), "Rows that wait for a shadow, in all processes."),
        Metric("vigia_web_processes", "gauge", (), "Web processes that run."),
        Metric("vigia_tasks_total", "counter", ("task", "result"), "Celery tasks that ended.", "worker"),
        Metric("vigia_database_up", "gauge", (), "1 when the database answered this scrape.", "database"),
        Metric("vigia_ready", "gauge", (), "1 when predictions can be answered.", "health"),
        Metric(
            "vigia_degraded",
            "gauge",
            ("check",),
            "1 when the check finds something wrong, 0 when all is well.",
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
            "Since the active version was trained.",
            "database",
        ),
        Metric(
            "vigia_review_verdict",
            "gauge",
            ("model", "version", "verdict"),
            "1 for the verdict of the last drift review, 0 for the others.",
            "database",
        ),
        Metric("vigia_review_age_seconds", "gauge", ("model",), "Since the last drift review.", "database"),
        Metric(
            "vigia_review_interval_seconds",
            "gauge",
            ("model",),
            "Time between scheduled drift reviews; models without a schedule are left out.",
            "database",
        ),
        Metric("vigia_review_rows", "gauge", ("model",), "Rows the last drift review is about.", "database"),
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
            "The metric as the last drift review expects it without outcomes.",
            "database",
        ),
        Metric(
            "vigia_quality_fall_ratio",
            "gauge",
            ("model", "version", "metric"),
            "By what share of the hold-out's value the watched metric is worse; negative: better.",
            "database",
        ),
        Metric(
            "vigia_quality_fell",
            "gauge",
            ("model", "version", "metric"),
            "1 when the last drift review says that the watched metric has fallen, chance aside; 0 when not.",
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
            "From the newest row of the log back to the last one that was counted for drift reviews.",
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
