"""Cache of loaded versions in this process.

A version never changes after its training, so a cached version cannot be stale. The database decides for
every request which version answers.
"""

from __future__ import annotations

import ctypes
import json
import logging
import mmap
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import Error, connection
from django.db.models import Exists, OuterRef, Q

from core.errors import Archived, ArtifactError, ArtifactPruned, NoActiveVersion, UnknownVersion
from training import artifacts
from training.models import ModelVersion, RegisteredModel, Rollout, serving_versions
from training.serving import routing, unusable_artifacts
from training.serving.routing import RoutedVersion
from vigia_ml.engines import Engine, class_name
from vigia_ml.schema import DatasetSchema
from vigia_ml.schema.row_decoder import CompiledSchema

log = logging.getLogger(__name__)

KEPT_VERSIONS = 32
KEPT_BYTES = 256 * 2**20  # in memory, roughly
LARGE_KEPT = 2  # versions larger than half of KEPT_BYTES: the active one, and its canary or its successor
# Bytes in memory for each stored byte, at most, as measured (docs/models.md): compressed trees unfold.
UNFOLDED = 6
LARGE_CODE = 2**20  # bytes


@dataclass(frozen=True, slots=True)
class Served:
    """One loaded version with all data that the inference path needs.

    by_class : JSON object of every class's probability, as a format of one ``%s`` for each class; None for a
        regression, and for an old version whose classes are unknown to its log rows.
    """

    model_id: int
    model_name: str
    version_id: int
    number: int
    schema: DatasetSchema
    compiled: CompiledSchema
    threshold: float | None
    engine: Engine
    size: int
    by_class: bytes | None = None


_kept: OrderedDict[int, Served] = OrderedDict()
_lock = threading.Lock()
_loading: dict[int, threading.Lock] = {}


def served(model: RegisteredModel, number: int | None = None) -> Served:
    """Returns the active version of `model`, or version `number`, loaded.

    Raises
    ------
    NoActiveVersion, UnknownVersion : the version does not exist.
    ArtifactError : its bytes cannot be used. ArtifactPruned : its artifact was pruned.
    Archived : the model or the version was archived.
    """
    rows = model.versions.filter(status=ModelVersion.Status.ACTIVE)
    if number is not None:
        rows = model.versions.filter(number=number) if 0 < number < 2**31 else model.versions.none()
    row: Any = rows.values_list("pk", "pruned__pk", "archived_at", "registered_model__archived_at").first()
    if row is None:
        raise NoActiveVersion(model.name) if number is None else UnknownVersion(model.name, number)
    version_id, pruned, archived, model_archived = row
    if archived is not None or model_archived is not None:
        raise Archived(model.name if model_archived is not None else f"{model.name} {number}")
    if pruned is not None:  # a pruned version does not answer, even from this process's memory
        raise ArtifactPruned(f"{model.name} {number}")
    return ready(version_id)


def served_to(
    model: RegisteredModel, number: int | None, client_id: int | None, generation: int
) -> tuple[Served, RoutedVersion]:
    """Returns the version that answers this client (version `number`, or the active one or its canary),
    loaded, and its route.

    If a canary cannot be loaded, the active version answers its clients for `routing.UNAVAILABLE_SECONDS`;
    `RoutedVersion.instead_of` then holds the rollout.

    Parameters
    ----------
    generation : the generation that the request read; see `training.serving.routing`.

    Raises
    ------
    NoActiveVersion, UnknownVersion : the version does not exist.
    ArtifactError : its bytes cannot be used. ArtifactPruned : its artifact was pruned.
    """
    snapshot = routing.at(generation)
    route = (
        snapshot.find_version(model.name, number, client_id) if number is None or 0 < number < 2**31 else None
    )
    if route is None:
        served(model, number)  # raises the precise error
        raise NoActiveVersion(model.name) if number is None else UnknownVersion(model.name, number)
    if route.canary is None:
        return ready(route.version_id), route
    try:
        return ready(route.version_id), route
    except Error:
        raise  # an error of the database is not the canary's
    except Exception as error:  # an error of the store or of a library must not fail a client's request
        log.error("the canary of %s cannot be loaded; the active version answers: %r", model.name, error)
        snapshot.mark_unavailable(route.version_id)
        fallback = snapshot.find_version(model.name, number, client_id)
        assert fallback is not None
        return ready(fallback.version_id), fallback


def peek(version_id: int) -> Served | None:
    """Returns a version that is already loaded, or None; takes no lock and makes no query."""
    version = _kept.get(version_id)
    if version is not None:
        with suppress(KeyError):  # another thread has just removed it
            _kept.move_to_end(version_id)
    return version


def ready(version_id: int) -> Served:
    """Returns a version from the cache, or loads it.

    Raises
    ------
    ArtifactError : its bytes cannot be used.
    """
    with _lock:
        version = _kept.get(version_id)
        if version is not None:
            _kept.move_to_end(version_id)
            return version
        loading = _loading.setdefault(version_id, threading.Lock())
    with loading:  # one thread loads and the others wait; requests for other versions do not wait
        try:
            with _lock:
                version = _kept.get(version_id)
            if version is None:
                version = _load(version_id)
                with _lock:
                    _kept[version_id] = version
                    _make_room()
        finally:
            with _lock:
                _loading.pop(version_id, None)
    return version


def _make_room() -> None:
    """Removes the least recently used versions from the cache, but never the last one.

    Versions larger than half of `KEPT_BYTES` (the index of a large catalogue) are counted separately:
    otherwise they and the others would evict each other with every request.
    """
    kept = list(_kept.items())  # a copy: `peek` moves entries without the lock
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
    try:
        engine = artifacts.load(row)
    except ArtifactError as error:
        unusable_artifacts.notice(version_id, error.message)
        raise
    unusable_artifacts.forget(version_id)
    trim_heap()
    _unmap_code()
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
        by_class=format_of(engine.classes) if engine.classes == row.known_classes else None,
        size=getattr(engine, "resident_bytes", 0) or UNFOLDED * (row.compiled_size or row.artifact_size),
    )


def format_of(classes: Sequence[Any] | None) -> bytes | None:
    """Returns `Served.by_class` of these classes."""
    if classes is None:
        return None
    texts = [json.dumps(class_name(label), ensure_ascii=False).encode() for label in classes]
    return b"{%s}" % b",".join([b"%s:%%s" % text.replace(b"%", b"%%") for text in texts])


def trim_heap() -> None:
    """Returns to the system the memory that the allocator keeps, after loading a model or large requests.

    Otherwise more than half of a forest's memory is such memory.
    """
    with suppress(OSError, AttributeError, TypeError):  # only glibc has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


def _unmap_code() -> None:
    """Unmaps the code of large libraries; the kernel maps again what is executed.

    Loading a model executes far more of ONNX Runtime than answering does. The pages are those of the file, so
    nothing is lost. Only Linux lists them.
    """
    with suppress(OSError, AttributeError, ValueError):
        madvise = ctypes.CDLL(None).madvise
        for start, end in code_of_files(Path("/proc/self/smaps").read_text(encoding="utf-8")):
            if end - start >= LARGE_CODE:
                madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def code_of_files(smaps: str) -> Iterator[tuple[int, int]]:
    """Yields (start, end) of each mapping of executable pages that are unchanged pages of a file.

    smaps : text of ``/proc/PID/smaps``. Code that was made in memory has no file, so it is left out.
    """
    span: tuple[int, int] | None = None
    for line in smaps.splitlines():
        first, *fields = line.split()
        if "-" in first:
            is_code = fields[0] == "r-xp" and len(fields) > 4 and fields[4].startswith("/")
            start, end = first.split("-")
            span = (int(start, 16), int(end, 16)) if is_code else None
        elif first == "Private_Dirty:" and fields[0] == "0" and span is not None:
            yield span


def forget() -> None:
    """Empties the cache; the next request loads its version again."""
    with _lock:
        _kept.clear()
    _verified.clear()


def warm_up() -> None:
    """Loads the active versions and those in a running rollout, at most `KEPT_VERSIONS`.

    A version that cannot be loaded is logged, and the others are still loaded.
    """
    try:
        active = Q(status=ModelVersion.Status.ACTIVE, registered_model__archived_at=None)
        tried = Exists(Rollout.objects.filter(version=OuterRef("pk"), stopped_at=None))
        rows = ModelVersion.objects.filter(active | Q(tried)).order_by("pk").values_list("pk", flat=True)
        for version_id in list(rows[:KEPT_VERSIONS]):
            try:
                routing.current().find_version(ready(version_id).model_name, None, None)
            except Error:
                raise  # an error of the database concerns every version
            except (ArtifactError, ModelVersion.DoesNotExist) as error:
                log.error("%s", error)
            except Exception:
                log.exception("version %s cannot be loaded", version_id)
    except Error as error:
        log.warning("loading versions before the first request failed: %s", error)
    finally:
        connection.close()


_verified: dict[int, object] = {}
"""The store's stamp of a version's files at their last verification, by the version's primary key."""


def unusable() -> dict[int, str]:
    """Returns the error of each active version that can no longer be loaded, by its primary key.

    A process verifies a version's bytes once, and again when the store's stamp changes. A version that was
    usable at the last check has an event.
    """
    active = serving_versions().select_related("registered_model").defer("schema", "evaluation")
    errors = {}
    for version in active:
        try:
            stamp = artifacts.stamp(version)
            if _verified.get(version.pk) != stamp:
                artifacts.verify(version)
                _verified[version.pk] = stamp
        except ArtifactError as error:
            errors[version.pk] = error.message
    unusable_artifacts.record(errors, [version.pk for version in active], by_check=True)
    return errors
