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

from django.db import Error, connection
from django.db.models import Exists, OuterRef, Q

from core.errors import ArtifactError, ArtifactPruned, NoActiveVersion, UnknownVersion
from training import artifacts
from training.models import ModelVersion, RegisteredModel, Rollout
from training.serving import routing
from training.serving.routing import RoutedVersion
from vigia_ml.engines import Engine
from vigia_ml.schema import DatasetSchema
from vigia_ml.schema.row_decoder import CompiledSchema

log = logging.getLogger(__name__)

KEPT_VERSIONS = 32
KEPT_BYTES = 256 * 2**20  # in memory, roughly
LARGE_KEPT = 2  # of those that take more than half of it: the active one, and its canary or its successor
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
    found: tuple[int, int | None] | None = rows.values_list("pk", "pruned__pk").first()
    if found is None:
        raise NoActiveVersion(model.name) if number is None else UnknownVersion(model.name, number)
    version_id, pruned = found
    if pruned is not None:  # what this process still holds in memory does not count
        raise ArtifactPruned(f"{model.name} {number}")
    return ready(version_id)


def served_to(
    model: RegisteredModel, number: int | None, client_id: int | None, generation: int
) -> tuple[Served, RoutedVersion]:
    """What answers this client: version `number`, or the active one or its canary; and what it is named as.

    A canary that cannot be loaded fails nobody: the active version answers in its place, for a while without
    another try, and `RoutedVersion.instead_of` says so.

    Parameters
    ----------
    generation : as the request found it; see `training.serving.routing`.

    Raises
    ------
    NoActiveVersion, UnknownVersion : there is none.
    ArtifactError : its bytes cannot be used. ArtifactPruned : they were removed on purpose.
    """
    known = routing.at(generation)
    named = (
        known.find_version(model.name, number, client_id) if number is None or 0 < number < 2**31 else None
    )
    if named is None:
        served(model, number)  # says why
        raise NoActiveVersion(model.name) if number is None else UnknownVersion(model.name, number)
    if named.canary is None:
        return ready(named.version_id), named
    try:
        return ready(named.version_id), named
    except Error:
        raise  # the database's trouble is not the canary's
    except Exception as error:  # whatever the store or a library raises, it harms nobody
        log.error("the canary of %s cannot answer, the active version does: %r", model.name, error)
        known.mark_unavailable(named.version_id)
        fallback = known.find_version(model.name, number, client_id)
        assert fallback is not None
        return ready(fallback.version_id), fallback


def peek(version_id: int) -> Served | None:
    """A version that is ready already; asks nobody and waits for nobody."""
    found = _kept.get(version_id)
    if found is not None:
        with suppress(KeyError):  # another thread has just dropped it
            _kept.move_to_end(version_id)
    return found


def ready(version_id: int) -> Served:
    """A version ready to answer, loaded if need be.

    Raises
    ------
    ArtifactError : its bytes cannot be used.
    """
    with _lock:
        found = _kept.get(version_id)
        if found is not None:
            _kept.move_to_end(version_id)
            return found
        loading = _loading.setdefault(version_id, threading.Lock())
    with loading:  # one thread loads, the others wait for it, requests for other versions do not
        try:
            with _lock:
                found = _kept.get(version_id)
            if found is None:
                found = _load(version_id)
                with _lock:
                    _kept[version_id] = found
                    _make_room()
        finally:
            with _lock:
                _loading.pop(version_id, None)
    return found


def _make_room() -> None:
    """Drops what was asked for longest ago; never the last.

    What takes more than half the room (the index of a large catalogue) is counted apart: it would drive all
    others out, and they it, with every request.
    """
    kept = list(_kept.items())  # at once: `peek` moves what it finds, and waits for no lock
    large = [key for key, each in kept if each.size > KEPT_BYTES // 2]
    for key in large[:-LARGE_KEPT]:
        del _kept[key]
    others = [(key, each.size) for key, each in kept if key not in large]
    left, size = len(others), sum(each for _, each in others)
    for key, each in others[:-1]:
        if left <= KEPT_VERSIONS and size <= KEPT_BYTES:
            break
        del _kept[key]
        left, size = left - 1, size - each


def _load(version_id: int) -> Served:
    row = ModelVersion.objects.select_related("registered_model").get(pk=version_id)
    engine = artifacts.load(row)
    schema = row.dataset_schema
    return Served(
        model_id=row.registered_model_id,
        model_name=row.registered_model.name,
        version_id=row.pk,
        number=row.number,
        schema=schema,
        compiled=CompiledSchema(schema),
        threshold=row.threshold,
        engine=engine,
        size=getattr(engine, "resident_bytes", 0) or UNFOLDED * (row.compiled_size or row.artifact_size),
    )


def forget() -> None:
    """Drops everything kept; what is asked for next is loaded again."""
    with _lock:
        _kept.clear()
    _verified.clear()


def warm_up() -> None:
    """Loads every active version and what is tried beside it (at most as many as are kept); one that cannot
    be loaded is logged, and the others are loaded all the same."""
    try:
        active = Q(status=ModelVersion.Status.ACTIVE)
        tried = Exists(Rollout.objects.filter(version=OuterRef("pk"), stopped_at=None))
        rows = ModelVersion.objects.filter(active | Q(tried)).order_by("pk").values_list("pk", flat=True)
        for version_id in list(rows[:KEPT_VERSIONS]):
            try:
                routing.current().find_version(ready(version_id).model_name, None, None)
            except Error:
                raise  # the database's trouble is everybody's
            except (ArtifactError, ModelVersion.DoesNotExist) as error:
                log.error("%s", error)
            except Exception:
                log.exception("version %s cannot be loaded", version_id)
    except Error as error:
        log.warning("no version was loaded ahead of the first request: %s", error)
    finally:
        connection.close()


_verified: dict[int, object] = {}
"""What the store said of a version's files when they were verified."""


def unusable() -> dict[int, str]:
    """Why an active version cannot be loaded anew, by its primary key; without an entry where it can.

    Its bytes are verified once in a process, and again when the store says that they changed.
    """
    active = ModelVersion.objects.filter(status=ModelVersion.Status.ACTIVE).select_related("registered_model")
    found = {}
    for version in active.defer("schema", "evaluation"):
        try:
            stamp = artifacts.stamp(version)
            if _verified.get(version.pk) != stamp:
                artifacts.verify(version)
                _verified[version.pk] = stamp
        except ArtifactError as error:
            found[version.pk] = error.message
    return found
