"""Versions made ready to answer, kept in this process.

A version never changes after it was trained, so what is kept cannot grow stale; which version answers is
asked of the database for every request.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.db import Error, connection

from training import artifacts
from training.engines import Engine
from training.errors import ArtifactError, ArtifactPruned, NoActiveVersion, UnknownVersion
from training.models import ModelVersion, RegisteredModel
from training.schema import DatasetSchema
from training.schema.compiled import CompiledSchema
from training.services import snapshot

log = logging.getLogger(__name__)

KEPT_VERSIONS = 32
KEPT_BYTES = 256 * 2**20  # in memory, roughly
# What a version takes in memory for each stored byte, as measured (docs/models.md): compressed trees unfold.
UNFOLDED = 6


@dataclass(frozen=True, slots=True)
class Served:
    """All the inference path needs of one version."""

    model_id: int
    model_name: str
    version_id: int
    number: int
    schema: DatasetSchema
    compiled: CompiledSchema
    threshold: float | None
    engine: Engine
    size: int


_kept: OrderedDict[int, Served] = OrderedDict()
_lock = threading.Lock()
_loading: dict[int, threading.Lock] = {}


def served(model: RegisteredModel, number: int | None = None) -> Served:
    """The active version of `model`, or version `number`, ready to answer.

    Raises
    ------
    NoActiveVersion, UnknownVersion : there is none.
    ArtifactError : its bytes cannot be used. ArtifactPruned : they were removed on purpose.
    """
    rows = model.versions.filter(status=ModelVersion.Status.ACTIVE)
    if number is not None:
        rows = model.versions.filter(number=number) if 0 < number < 2**31 else model.versions.none()
    found: Any = rows.values_list("pk", "pruned__pk").first()
    if found is None:
        raise NoActiveVersion(model.name) if number is None else UnknownVersion(model.name, number)
    version_id, pruned = found
    if pruned is not None:  # what this process still holds in memory does not count
        raise ArtifactPruned(f"{model.name} {number}")
    return _ready(version_id)


def peek(version_id: int) -> Served | None:
    """A version that is ready already; asks nobody and waits for nobody."""
    found = _kept.get(version_id)
    if found is not None:
        with suppress(KeyError):  # another thread has just dropped it
            _kept.move_to_end(version_id)
    return found


def _ready(version_id: int) -> Served:
    with _lock:
        found = _kept.get(version_id)
        if found is not None:
            _kept.move_to_end(version_id)
            return found
        loading = _loading.setdefault(version_id, threading.Lock())
    with loading:  # one thread loads, the others wait for it, requests for other versions do not
        with _lock:
            found = _kept.get(version_id)
        if found is None:
            found = _load(version_id)
            with _lock:
                _kept[version_id] = found
                while len(_kept) > 1 and (len(_kept) > KEPT_VERSIONS or _kept_bytes() > KEPT_BYTES):
                    _kept.popitem(last=False)
        with _lock:
            _loading.pop(version_id, None)
    return found


def _kept_bytes() -> int:
    return sum(kept.size for kept in list(_kept.values()))


def _load(version_id: int) -> Served:
    row = ModelVersion.objects.select_related("registered_model").get(pk=version_id)
    schema = row.dataset_schema
    return Served(
        model_id=row.registered_model_id,
        model_name=row.registered_model.name,
        version_id=row.pk,
        number=row.number,
        schema=schema,
        compiled=CompiledSchema(schema),
        threshold=row.threshold,
        engine=artifacts.load(row),
        size=UNFOLDED * (row.compiled_size or row.artifact_size),
    )


def forget() -> None:
    """Drops everything kept; what is asked for next is loaded again."""
    with _lock:
        _kept.clear()


def warm_up() -> None:
    """Loads every active version (at most as many as are kept); what cannot be loaded is logged."""
    try:
        active = ModelVersion.objects.filter(status=ModelVersion.Status.ACTIVE).values_list("pk", flat=True)
        for version_id in list(active[:KEPT_VERSIONS]):
            try:
                snapshot.current().find_version(_ready(version_id).model_name, None)
            except ArtifactError as error:
                log.warning("%s", error)
    except Error as error:
        log.warning("no version was loaded ahead of the first request: %s", error)
    finally:
        connection.close()
