"""Merges the metrics of all processes and renders them in a format that Prometheus reads.

This module imports Prometheus' client, which reads its directory once. So a module that is imported before
`core.metrics.multiprocess_dir.begin` must import this one inside its functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from core.metrics import counters, multiprocess_dir
from web import health
from web.metrics import database_collector, exporter

SCRAPE_SECONDS: Final = 0.3
"""How long a scrape waits for the health checks before it reports their last results."""


class _Scrape(Collector):
    """The metrics of one scrape, in the form that the client's encoders take."""

    def __init__(self, *parts: Iterable[Metric]) -> None:
        self._parts = parts

    def collect(self) -> Iterable[Metric]:
        return chain(*self._parts)


def _metrics_of(*roles: multiprocess_dir.Role) -> Iterable[Metric]:
    """Returns the metrics of all processes of these roles."""
    metrics: Iterable[Metric] = MultiProcessCollector.merge(multiprocess_dir.files(*roles))  # type: ignore[no-untyped-call]
    return metrics


def _health() -> Iterable[Metric]:
    report, families = health.report(SCRAPE_SECONDS), database_collector.Families()
    families.add("vigia_ready", (), report.is_ready)
    for check in health.CHECKS:
        families.add("vigia_degraded", (check,), check in report.problems)
    return families.by_name.values()


def render_all(accept: str) -> tuple[bytes, str]:
    """Returns (body, content type) of all processes of this machine and the database.

    `accept` is the header ``Accept`` of the request."""
    exporter.measure_queues()
    # A server other than gunicorn has one process, and shares no files.
    in_files = multiprocess_dir.role() is not None
    registry = counters.instruments().registry
    counted = _metrics_of(*multiprocess_dir.ROLES) if in_files else registry.collect()
    return _render(accept, counted, database_collector.collect(), _health())


def render_worker(accept: str) -> tuple[bytes, str]:
    """Returns (body, content type) of the worker's processes alone."""
    return _render(accept, _metrics_of("worker"))


def _render(accept: str, *parts: Iterable[Metric]) -> tuple[bytes, str]:
    encode, kind = choose_encoder(accept)
    return encode(_Scrape(*parts)), kind
