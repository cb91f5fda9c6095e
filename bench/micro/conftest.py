"""A real database and real versions of two models, created once per session."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from core.metrics import multiprocess_dir
from predictions.log import partitions
from tests.conftest import _log_writer_ends, _own_directories
from tests.trained import SAMPLES, train_sample
from training import artifacts
from training.access import client_keys
from training.serving import engine_cache
from training.serving.engine_cache import Served
from vigia_ml.engines import Engine

# pytest finds them by their names in this module.
SHARED = (_log_writer_ends, _own_directories)
MODELS = ("churn", "houses")


@pytest.fixture(scope="session", autouse=True)
def _metrics_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Gives this process files for its metrics, as a web process has them."""
    os.environ["METRICS_DIR"] = str(tmp_path_factory.mktemp("metrics"))
    multiprocess_dir.begin("web")


@dataclass(frozen=True)
class Ready:
    """A served version, the same version with the scikit-learn engine, and valid rows for both."""

    served: Served
    sklearn: Engine
    rows: list[dict[str, Any]]
    client_id: int

    def group(self, step: str, count: int) -> str:
        """Returns the heading under which steps of one kind are compared."""
        return f"{step}: {self.served.model_name}, {count:,} {'row' if count == 1 else 'rows'}"


@pytest.fixture(scope="session")
def versions(
    _own_directories: None, django_db_setup: None, django_db_blocker: Any
) -> Iterator[dict[str, Ready]]:
    """Yields versions by the names of their models, trained on all sample rows."""
    with django_db_blocker.unblock():
        partitions.ensure(timezone.now(), settings.PARTITIONS_AHEAD)
        client = client_keys.client_with_every_right("bench")
        ready = {}
        for name in MODELS:
            version = train_sample(name)
            served = engine_cache.served(version.registered_model)
            assert served.engine.name == "onnx", version.engine_reason
            rows = _rows(name, served)
            ready[name] = Ready(served, artifacts.load_pipeline(version), rows, client.pk)
        yield ready


def _rows(name: str, served: Served) -> list[dict[str, Any]]:
    """Returns a thousand rows of the sample, with the names and values of the schema."""
    with (SAMPLES / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        cells = [row for row, _ in zip(csv.DictReader(file), range(1_000), strict=False)]
    read = [served.schema.read(row, text=True) for row in cells]
    return [row.values for row in read]  # type: ignore[union-attr]


@pytest.fixture(params=MODELS)
def ready(request: pytest.FixtureRequest, versions: dict[str, Ready]) -> Ready:
    return versions[request.param]


@pytest.fixture(params=[1, 1_000], ids=["1 row", "1,000 rows"])
def count(request: pytest.FixtureRequest) -> int:
    rows: int = request.param
    return rows
