"""Pushes: a fitted pipeline is compiled here, sent as a graph, and followed until it is a version."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from vigia_ml.client import endpoints, jobs
from vigia_ml.client.core import Core, at, encoded, new_key
from vigia_ml.client.errors import UnexpectedAnswer
from vigia_ml.client.flow import Flow, Upload, Work
from vigia_ml.client.progress import Progress
from vigia_ml.client.results import Run, VersionFields

if TYPE_CHECKING:
    from vigia_ml.pushing import Package

V = TypeVar("V", bound=VersionFields)
KINDS: Final = {
    "graph": "application/octet-stream",
    "train": "application/vnd.apache.parquet",
    "holdout": "application/vnd.apache.parquet",
    "answers": "application/vnd.apache.parquet",
}
_SEND_SECONDS: Final = 300.0


def push(
    core: Core,
    kind: type[V],
    pipeline: Any,
    X_train: Any,
    y_train: Any,
    X_test: Any,
    y_test: Any,
    *,
    name: str,
    activate: str | None = None,
    progress: Progress = False,
    **options: Any,
) -> Flow[V]:
    """Compiles a fitted pipeline, sends the package and waits for its version."""
    with tempfile.TemporaryDirectory(prefix="vigia-push-") as directory:
        package = yield Work(
            partial(_packaged, Path(directory), pipeline, X_train, y_train, X_test, y_test, options)
        )
        run = yield from send(core, package, name)
    run = yield from jobs.follow(core, run, progress=progress)
    if run.version is None:
        raise UnexpectedAnswer(f"run {run.id} of {run.model} succeeded without a version")
    if activate is not None:
        yield from endpoints.activate(core, name, run.version, reason=activate)
    version = yield from endpoints.version(core, name, run.version, kind)
    return msgspec.structs.replace(version, run=run)


def send(core: Core, package: Package, name: str) -> Flow[Run]:
    """Uploads a package and returns the queued run. Retries send the same bytes with the same key."""
    key = new_key()
    files = {part: (Path(getattr(package, part)), content_type) for part, content_type in KINDS.items()}
    upload = Upload({"manifest": encoded(package.manifest).decode()}, files, boundary=f"vigia-{key}")
    path = at("models", name, "versions")
    return (yield from core.post(path, Run, upload, timeout=_SEND_SECONDS, idempotency_key=key))


def _packaged(
    directory: Path,
    pipeline: Any,
    X_train: Any,
    y_train: Any,
    X_test: Any,
    y_test: Any,
    options: dict[str, Any],
) -> Package:
    from vigia_ml.pushing import package

    return package(pipeline, X_train, y_train, X_test, y_test, directory=directory, **options)
