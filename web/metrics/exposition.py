"""All that was counted by whomever, in a format Prometheus reads.

This module imports Prometheus' client, which looks once where numbers are to be left. So whatever is imported
before `core.metrics.multiprocess_dir.begin` must import this one inside its functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from core.metrics import multiprocess_dir
from web import health
from web.metrics import exporter
from web.metrics.database_collector import DatabaseCollector, Families

SCRAPE_SECONDS: Final = 0.3
"""How long a scrape waits for the health checks; then it tells what they found last."""


class Shared(Collector):
    """What all processes of some roles counted."""

    def __init__(self, *roles: multiprocess_dir.Role) -> None:
        self._roles = roles

    def collect(self) -> Iterable[Metric]:
        found: Iterable[Metric] = MultiProcessCollector.merge(multiprocess_dir.files(*self._roles))  # type: ignore[no-untyped-call]
        return found


class Own(Collector):
    """What this process counted, where it leaves nothing for others: another server than gunicorn."""

    def collect(self) -> Iterable[Metric]:
        return exporter.flusher().instruments.registry.collect()


class Health(Collector):
    """Metrics of the health checks."""

    def collect(self) -> Iterable[Metric]:
        found, families = health.report(SCRAPE_SECONDS), Families()
        families.add("vigia_ready", (), found.is_ready)
        for check in health.CHECKS:
            families.add("vigia_degraded", (check,), check in found.found)
        return families.made.values()


def everything(accept: str) -> tuple[bytes, str]:
    """(body, content type) for a header ``Accept``: of all processes of this machine, and the database."""
    exporter.flusher().flush()
    return _written(
        accept,
        Shared(*multiprocess_dir.ROLES) if multiprocess_dir.role() else Own(),
        DatabaseCollector(),
        Health(),
    )


def of_the_worker(accept: str) -> tuple[bytes, str]:
    """The same of the worker's processes alone."""
    return _written(accept, Shared("worker"))


def _written(accept: str, *collectors: Collector) -> tuple[bytes, str]:
    registry = CollectorRegistry(auto_describe=False)
    for each in collectors:
        registry.register(each)
    encode, kind = choose_encoder(accept)
    return encode(registry), kind
