"""Merges the metrics of all processes and renders them in a format that Prometheus reads.

This module imports Prometheus' client, which reads its directory once. So a module that is imported before
`core.metrics.multiprocess_dir.begin` must import this one inside its functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from core.metrics import counters, multiprocess_dir
from web import health
from web.metrics import exporter
from web.metrics.database_collector import DatabaseCollector, Families

SCRAPE_SECONDS: Final = 0.3
"""How long a scrape waits for the health checks before it reports their last results."""


class RoleMetrics(Collector):
    """The counters of all processes of some roles."""

    def __init__(self, *roles: multiprocess_dir.Role) -> None:
        self._roles = roles

    def collect(self) -> Iterable[Metric]:
        metrics: Iterable[Metric] = MultiProcessCollector.merge(multiprocess_dir.files(*self._roles))  # type: ignore[no-untyped-call]
        return metrics


class ProcessMetrics(Collector):
    """The counters of this process, for a server other than gunicorn, which shares no files."""

    def collect(self) -> Iterable[Metric]:
        return counters.instruments().registry.collect()


class HealthMetrics(Collector):
    """The results of the health checks."""

    def collect(self) -> Iterable[Metric]:
        report, families = health.report(SCRAPE_SECONDS), Families()
        families.add("vigia_ready", (), report.is_ready)
        for check in health.CHECKS:
            families.add("vigia_degraded", (check,), check in report.problems)
        return families.by_name.values()


def render_all(accept: str) -> tuple[bytes, str]:
    """Returns (body, content type) of all processes of this machine and the database.

    `accept` is the header ``Accept`` of the request."""
    exporter.measure_queues()
    return _render(
        accept,
        RoleMetrics(*multiprocess_dir.ROLES) if multiprocess_dir.role() else ProcessMetrics(),
        DatabaseCollector(),
        HealthMetrics(),
    )


def render_worker(accept: str) -> tuple[bytes, str]:
    """Returns (body, content type) of the worker's processes alone."""
    return _render(accept, RoleMetrics("worker"))


def _render(accept: str, *collectors: Collector) -> tuple[bytes, str]:
    registry = CollectorRegistry(auto_describe=False)
    for each in collectors:
        registry.register(each)
    encode, kind = choose_encoder(accept)
    return encode(registry), kind
