"""The only place that reads or writes model bytes.

Bytes are stored under their sha256. Before anything is loaded, digest and HMAC are checked on the very bytes
that will be loaded; names come from the version's row alone, never from a user.

A version has its fitted pipeline (a pickle) and, where it was compiled, the bytes of the engine that
serves it. Serving a compiled version unpickles nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import platform
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as library_version
from pathlib import Path
from typing import TYPE_CHECKING, cast

from django.conf import settings
from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage
from django.utils.crypto import salted_hmac

from core.errors import ArtifactError, ArtifactPruned, StoreUnavailable
from vigia_ml import engines

if TYPE_CHECKING:
    from training.models import Dataset, ModelVersion
    from vigia_ml.engines.sklearn import SklearnEngine
    from vigia_ml.fitting.parquet import Written

log = logging.getLogger(__name__)

LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "joblib", "skl2onnx", "onnx", "onnxruntime", "numba")
COMPILED = "onnx"  # the engine's name, here without importing it
DIGEST = re.compile(r"[0-9a-f]{64}")
CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Stored:
    """Where bytes went: their digest, their signature and their length."""

    sha256: str
    hmac: str
    size: int


def libraries() -> dict[str, str]:
    """Versions of what an artifact depends on, in this process; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = library_version(name)
    return found


def store(data: bytes) -> Stored:
    """Stores model bytes; the same bytes twice are stored once."""
    digest = hashlib.sha256(data).hexdigest()
    # Written even if the name is there: what is there may be damaged, and this repairs it.
    _write(_name(digest), ContentFile(data))
    return Stored(digest, _sign(data), len(data))


def ensure(stored: Stored, data: bytes) -> None:
    """Stores the bytes again if they were removed since (an older version had the same, and was pruned).

    Raises
    ------
    StoreUnavailable : they cannot be written; so do `store` and `store_dataset`.
    """
    if not default_storage.exists(_name(stored.sha256)):
        store(data)


def remove(digest: str) -> None:
    """Removes bytes that no version needs any more; that they are gone already is as well.

    Raises
    ------
    StoreUnavailable : they cannot be removed.
    """
    try:
        default_storage.delete(_name(digest))
    except Exception as error:
        log.error("%s cannot be removed from the store: %s", _name(digest), error)
        raise StoreUnavailable(error) from error


def check_kept(version: ModelVersion) -> None:
    """Raise `ArtifactPruned` when the version's artifact was removed on purpose."""
    rows = type(version)._default_manager.filter(pk=version.pk, pruned__isnull=False)
    if rows.exists():
        raise ArtifactPruned(version)


def fetch(version: ModelVersion) -> bytes:
    """The verified bytes of a version's fitted pipeline.

    Raises
    ------
    ArtifactError : when they are missing or are not, bit for bit, what was stored and signed.
    ArtifactPruned : when they were removed on purpose.
    """
    check_kept(version)
    return _verified(f"the artifact of {version}", version.artifact_sha256, version.artifact_hmac)


def fetch_compiled(version: ModelVersion) -> bytes:
    """The verified bytes of a version's compiled engine; raises as `fetch` does."""
    if not version.compiled_sha256:
        raise ArtifactError(f"{version} was not compiled")
    check_kept(version)
    return _verified(f"the compiled engine of {version}", version.compiled_sha256, version.compiled_hmac)


def load(version: ModelVersion) -> engines.Engine:
    """The engine that serves the version, from verified bytes.

    A compiled engine does not depend on the scikit-learn it came from: neither is that looked at, nor is
    anything unpickled.

    Raises
    ------
    ArtifactError : see `fetch`; for scikit-learn's engine also when another scikit-learn made the artifact.
    """
    if version.engine == COMPILED:
        return _loaded(version, COMPILED, fetch_compiled(version))
    if engines.stands_alone(version.engine):
        return _loaded(version, version.engine, fetch(version))
    check_libraries(version)
    return _loaded(version, version.engine, fetch(version))


def load_pipeline(version: ModelVersion) -> SklearnEngine:
    """The version's fitted pipeline, whichever engine serves it: for comparisons and replays.

    Raises
    ------
    ArtifactError : see `fetch`; also when another scikit-learn made the artifact.
    """
    check_libraries(version)
    engine = _loaded(version, "sklearn", fetch(version))
    return cast("SklearnEngine", engine)


def _loaded(version: ModelVersion, engine: str, data: bytes) -> engines.Engine:
    try:
        return engines.load(engine, data, version.dataset_schema)
    except Exception as error:  # unpickling runs other classes' code: it can raise anything
        raise ArtifactError(f"{version} cannot be loaded by this code: {error}") from error


def check_libraries(version: ModelVersion) -> None:
    """Raise `ArtifactError` when this process runs another scikit-learn than the one that made it."""
    made_by, here = version.libraries.get("scikit-learn"), library_version("scikit-learn")
    if made_by != here:
        raise ArtifactError(
            f"{version} was trained with scikit-learn {made_by}, this process runs {here}: "
            "train it again, or run the version it was trained with"
        )


def store_dataset(written: Written) -> None:
    """Stores a finished Parquet file under its content address."""
    name = f"datasets/{written.sha256[:2]}/{written.sha256}.parquet"
    with written.path.open("rb") as stream:
        _write(name, File(stream))


def _write(name: str, content: File) -> None:  # type: ignore[type-arg]
    try:
        default_storage.save(name, content)
    except Exception as error:  # each storage has errors of its own; here they all mean the same
        log.error("%s cannot be written to the store: %s", name, error)
        raise StoreUnavailable(error) from error


def probe() -> None:
    """Writes a few bytes to the store and removes them; raises `StoreUnavailable`."""
    name = f"probes/{socket.gethostname()}-{os.getpid()}"
    _write(name, ContentFile(bytes(4096)))  # a full disk lets an empty file pass
    with suppress(Exception):
        default_storage.delete(name)


@contextmanager
def dataset_file(dataset: Dataset) -> Iterator[Path]:
    """The dataset's Parquet file as a local path, verified against its row."""
    what = f"dataset {dataset.sha256[:12]}"
    with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
        local = Path(directory) / "rows.parquet"
        with local.open("wb") as target:
            for chunk in _chunks(what, dataset.storage_name):
                target.write(chunk)
        with local.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != dataset.sha256:
                raise ArtifactError(f"{what} was changed in the store")
        yield local


def stamp(version: ModelVersion) -> object:
    """What the store says of the bytes that serve a version, without reading them; it changes when they do.

    Raises
    ------
    ArtifactError : they are not there.
    """
    what, digest, _ = _serving(version)
    try:
        return default_storage.size(_name(digest)), default_storage.get_modified_time(_name(digest))
    except Exception as error:  # each storage has errors of its own
        raise ArtifactError(f"{what} cannot be found in the store") from error


def verify(version: ModelVersion) -> None:
    """Reads the bytes that serve a version, in pieces; raises `ArtifactError` where `load` would."""
    what, digest, signature = _serving(version)
    if version.engine != COMPILED and not engines.stands_alone(version.engine):
        check_libraries(version)
    _check_digest(what, digest)
    content, sign = hashlib.sha256(), _signing(b"")
    for chunk in _chunks(what, _name(digest)):
        content.update(chunk)
        sign.update(chunk)
    _check(what, content.hexdigest() == digest, _same(sign.hexdigest(), signature))


def _serving(version: ModelVersion) -> tuple[str, str, str]:
    """(name in words, digest, signature) of the bytes that serve a version."""
    if version.engine == COMPILED:
        compiled = version.compiled_sha256 or "", version.compiled_hmac or ""
        return f"the compiled engine of {version}", *compiled
    return f"the artifact of {version}", version.artifact_sha256, version.artifact_hmac


def _verified(what: str, digest: str, signature: str) -> bytes:
    _check_digest(what, digest)
    data = b"".join(_chunks(what, _name(digest)))
    _check(what, hashlib.sha256(data).hexdigest() == digest, _same(_sign(data), signature))
    return data


def _chunks(what: str, name: str) -> Iterator[bytes]:
    """The bytes under a name of the store.

    Raises
    ------
    ArtifactError : whatever keeps them from being read: stores raise errors of many kinds.
    """
    try:
        with default_storage.open(name) as stream:
            yield from stream.chunks(CHUNK)
    except FileNotFoundError:
        raise ArtifactError(f"{what} is not in the store") from None
    except Exception as error:
        said = getattr(error, "strerror", None) or type(error).__name__  # no path: clients read this
        raise ArtifactError(f"{what} cannot be read from the store: {said}") from error


def _check_digest(what: str, digest: str) -> None:
    if not DIGEST.fullmatch(digest):
        raise ArtifactError(f"{what} cannot be found: its row holds no digest of it")


def _check(what: str, whole: bool, signed: bool) -> None:
    if not whole:
        raise ArtifactError(f"{what} was changed: its digest does not match its row")
    if not signed:
        raise ArtifactError(f"{what} was not signed with this service's ARTIFACT_KEY")


def _same(ours: str, theirs: str) -> bool:
    """Compared as bytes: as text, a signature that is not ASCII would raise an error of its own."""
    return hmac.compare_digest(ours.encode(), theirs.encode())


def _name(digest: str) -> str:
    return f"artifacts/{digest[:2]}/{digest}"


def _sign(data: bytes) -> str:
    return _signing(data).hexdigest()


def _signing(data: bytes) -> hmac.HMAC:
    return salted_hmac("training.artifacts", data, secret=settings.ARTIFACT_KEY, algorithm="sha256")
