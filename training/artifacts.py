"""The only place that reads or writes model bytes.

Bytes are stored under their sha256. Before bytes are loaded, this module checks digest and HMAC on these very
bytes; their names come from the version's row alone, never from a user.

A trained version has its fitted pipeline (a pickle) and, if it was compiled, the bytes of the engine that
serves it. Serving a compiled version unpickles nothing. A pushed or imported version has only a compiled
graph. Its bytes came from outside, so they are signed as a graph and never unpickled.
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
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as library_version
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast

from django.conf import settings
from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage
from django.utils.crypto import salted_hmac

from core import disk
from core.errors import Archived, ArtifactError, ArtifactPruned, StoreUnavailable
from vigia_ml import engines

if TYPE_CHECKING:
    from training.models import Dataset, ModelVersion
    from vigia_ml.engines.sklearn import SklearnEngine
    from vigia_ml.fitting.dataset_file import Written

log = logging.getLogger(__name__)

LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "joblib", "skl2onnx", "onnx", "onnxruntime", "numba")
COMPILED = "onnx"  # the engine's name, without importing the engine
DIGEST = re.compile(r"[0-9a-f]{64}")
CHUNK = 2**20
Signing = Literal["training.artifacts", "training.graphs"]
ARTIFACTS: Final[Signing] = "training.artifacts"
"""Salt of the signatures of bytes that this service wrote: pickles, and the engines compiled from them."""
GRAPHS: Final[Signing] = "training.graphs"
"""Salt of the signatures of graphs that came from outside."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Digest, signature and length of stored bytes."""

    sha256: str
    hmac: str
    size: int


def libraries() -> dict[str, str]:
    """Returns this process's versions of the installed libraries on which an artifact depends."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = library_version(name)
    return versions


def store(data: bytes, salt: Signing = ARTIFACTS) -> Stored:
    """Stores model bytes; equal bytes are stored once."""
    digest = hashlib.sha256(data).hexdigest()
    # Written even if the name exists: the stored bytes may be damaged, and this repairs them.
    write_file(_name(digest), ContentFile(data))
    return Stored(digest, _signing(data, salt).hexdigest(), len(data))


def ensure(stored: Stored, data: bytes) -> None:
    """Stores bytes again if they were removed since (an older version had equal bytes and was pruned).

    Raises
    ------
    StoreUnavailable : the bytes cannot be written; `store` and `store_dataset` raise it too.
    """
    if not default_storage.exists(_name(stored.sha256)):
        store(data)


def remove(digest: str) -> None:
    """Removes bytes that no version needs; accepts bytes that are already gone.

    Raises
    ------
    StoreUnavailable : the bytes cannot be removed.
    """
    _delete(_name(digest))


def remove_dataset(dataset: Dataset) -> None:
    """Removes a dataset's file; accepts a file that is gone. Raises `StoreUnavailable` as `remove` does."""
    _delete(dataset.storage_name)


def _delete(name: str) -> None:
    try:
        default_storage.delete(name)
    except Exception as error:
        log.error("cannot remove %s from the store: %s", name, error)
        raise StoreUnavailable(error) from error


def check_kept(version: ModelVersion) -> None:
    """Raises `Archived` or `ArtifactPruned` when the version was archived or its artifact was pruned."""
    rows = type(version)._default_manager.filter(pk=version.pk)
    state = rows.values_list("pruned__pk", "archived_at", "registered_model__archived_at").first()
    pruned, *archived = state or (None, None, None)
    if any(archived):
        raise Archived(version)
    if pruned is not None:
        raise ArtifactPruned(version)


def fetch(version: ModelVersion) -> bytes:
    """Returns the verified bytes of a version's fitted pipeline.

    Raises
    ------
    ArtifactError : the bytes are missing, or differ from those that were stored and signed.
    ArtifactPruned : the artifact was pruned.
    """
    check_kept(version)
    return b"".join(_verified(*_fitted(version)))


def is_graph(version: ModelVersion) -> bool:
    """Returns whether a version came from outside as a compiled graph, so that it has no pickle."""
    return version.origin != "trained"


def fetch_compiled(version: ModelVersion) -> bytes:
    """Returns the verified bytes of a version's compiled engine; raises the errors of `fetch`."""
    if not version.compiled_sha256:
        raise ArtifactError(f"{version} was not compiled")
    check_kept(version)
    return b"".join(_verified(*_compiled(version)))


def load(version: ModelVersion) -> engines.Engine:
    """Loads the engine that serves the version, from verified bytes.

    A compiled engine does not depend on the scikit-learn that trained it: loading it neither checks that
    version nor unpickles anything.

    Raises
    ------
    ArtifactError : see `fetch`; for scikit-learn's engine also when another scikit-learn built the artifact.
    """
    _check_engine(version, version.engine)
    _check_libraries_of_engine(version)
    data = fetch_compiled(version) if version.engine == COMPILED else fetch(version)
    return _loaded(version, version.engine, data)


def load_pipeline(version: ModelVersion) -> SklearnEngine:
    """Loads the version's fitted pipeline, whichever engine serves it; comparisons and replays use it.

    A pushed or imported version has none: its graph answers in the pipeline's place.

    Raises
    ------
    ArtifactError : see `fetch`; also when another scikit-learn built the artifact.
    """
    if is_graph(version):
        from vigia_ml.engines.frame_adapter import AskedByFrame
        from vigia_ml.engines.sklearn import SklearnEngine

        graph = cast("engines.MatrixEngine", _loaded(version, COMPILED, fetch_compiled(version)))
        schema = version.dataset_schema
        return SklearnEngine(AskedByFrame(graph, schema), schema)
    check_libraries(version)
    return cast("SklearnEngine", _loaded(version, "sklearn", fetch(version)))


def _loaded(version: ModelVersion, engine: str, data: bytes) -> engines.Engine:
    _check_engine(version, engine)
    try:
        return engines.load(engine, data, version.dataset_schema)
    except Exception as error:  # unpickling runs code of other classes, which may raise any error
        raise ArtifactError(f"{version} cannot be loaded by this code: {error}") from error


def _check_engine(version: ModelVersion, engine: str) -> None:
    """Raises `ArtifactError` for an engine that would unpickle bytes from outside."""
    if is_graph(version) and engine != COMPILED:
        raise ArtifactError(f"{version} came as a compiled graph; the engine {engine[:20]!r} cannot load it")


def check_libraries(version: ModelVersion) -> None:
    """Raises `ArtifactError` if the version was trained with another scikit-learn than this process runs, or
    if this process has none."""
    try:
        here = library_version("scikit-learn")
    except PackageNotFoundError:
        raise ArtifactError(
            f"{version} needs scikit-learn, which this image does not have: activate a compiled version, or "
            "run web from the full image"
        ) from None
    trained_with = version.libraries.get("scikit-learn")
    if trained_with != here:
        raise ArtifactError(
            f"{version} was trained with scikit-learn {trained_with}, this process runs {here}: "
            "train it again, or run the version it was trained with"
        )


def _check_libraries_of_engine(version: ModelVersion) -> None:
    """Checks the libraries as `check_libraries` does, if the engine depends on them."""
    if needs_scikit_learn(version):
        check_libraries(version)


def needs_scikit_learn(version: ModelVersion) -> bool:
    """Returns whether the engine that serves the version is a pickle of scikit-learn."""
    return version.engine != COMPILED and not engines.stands_alone(version.engine)


def store_dataset(written: Written) -> None:
    """Stores a finished Parquet file under its content address."""
    name = f"datasets/{written.sha256[:2]}/{written.sha256}.parquet"
    with written.path.open("rb") as stream:
        write_file(name, File(stream))


def write_file(name: str, content: File) -> None:  # type: ignore[type-arg]
    """Stores a file; raises `StoreUnavailable` when it cannot be written."""
    try:
        _check_space(content.size)
        default_storage.save(name, content)
    except Exception as error:  # each storage has its own errors; all mean that the store is unavailable
        log.error("cannot write %s to the store: %s", name, error)
        raise StoreUnavailable(error) from error


def _check_space(size: int) -> None:
    """Raises `OSError` (ENOSPC) where the bytes would take the disk's reserve, which the log may need."""
    with suppress(NotImplementedError, FileNotFoundError):  # a store of another kind; its first file of all
        disk.check_reserve(default_storage.path(""), size)


def probe() -> None:
    """Writes a few bytes to the store and removes them; raises `StoreUnavailable` when the write fails."""
    name = f"probes/{socket.gethostname()}-{os.getpid()}"
    write_file(name, ContentFile(bytes(4096)))  # an empty file can be written to a full disk
    with suppress(Exception):
        default_storage.delete(name)


@contextmanager
def dataset_file(dataset: Dataset) -> Iterator[Path]:
    """Copies the dataset's Parquet file to a local path and verifies it against the dataset's row.

    Raises
    ------
    Archived : the dataset was archived. ArtifactError : its bytes are missing or were changed.
    """
    description = f"dataset {dataset.sha256[:12]}"
    if type(dataset)._default_manager.filter(pk=dataset.pk, archived_at__isnull=False).exists():
        raise Archived(description)
    with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
        local = Path(directory) / "rows.parquet"
        with local.open("wb") as target:
            for chunk in _chunks(description, dataset.storage_name):
                target.write(chunk)
        with local.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != dataset.sha256:
                raise ArtifactError(f"{description} was changed in the store")
        yield local


def stamp(version: ModelVersion) -> object:
    """Returns size and modification time of the bytes that serve a version; a change of the bytes changes
    them.

    Raises
    ------
    ArtifactError : the bytes are missing.
    """
    description, digest, *_ = _serving(version)
    try:
        return default_storage.size(_name(digest)), default_storage.get_modified_time(_name(digest))
    except Exception as error:  # each storage has its own errors
        raise ArtifactError(f"{description} cannot be found in the store") from error


def verify(version: ModelVersion) -> None:
    """Verifies the bytes that serve a version, piece by piece; raises `ArtifactError` as `load` does."""
    _check_libraries_of_engine(version)
    deque(_verified(*_serving(version)), maxlen=0)  # keeps none of the pieces


Bytes = tuple[str, str, str, Signing]
"""Description, digest, signature, and its salt."""


def _fitted(version: ModelVersion) -> Bytes:
    """Returns the bytes of a version's fitted pipeline."""
    description = f"the artifact of {version}"
    return description, version.artifact_sha256, version.artifact_hmac, _salt(version)


def _compiled(version: ModelVersion) -> Bytes:
    description = f"the compiled engine of {version}"
    return description, version.compiled_sha256, version.compiled_hmac, _salt(version)


def _salt(version: ModelVersion) -> Signing:
    return GRAPHS if is_graph(version) else ARTIFACTS


def _serving(version: ModelVersion) -> Bytes:
    return _compiled(version) if version.engine == COMPILED else _fitted(version)


def _verified(description: str, digest: str, signature: str, salt: Signing) -> Iterator[bytes]:
    """Yields the stored bytes of a digest; the last step verifies them all, so use no piece before the end.

    Raises
    ------
    ArtifactError : the digest is invalid, or the bytes are missing, changed or not signed with this key.
    """
    if not DIGEST.fullmatch(digest):
        raise ArtifactError(f"{description} cannot be found: its row holds no valid digest")
    content, sign = hashlib.sha256(), _signing(b"", salt)
    for chunk in _chunks(description, _name(digest)):
        content.update(chunk)
        sign.update(chunk)
        yield chunk
    if content.hexdigest() != digest:
        raise ArtifactError(f"{description} was changed: its digest does not match its row")
    # As bytes: a signature that is not ASCII would raise an error as text.
    if not hmac.compare_digest(sign.hexdigest().encode(), signature.encode()):
        raise ArtifactError(f"{description} was not signed with this service's ARTIFACT_KEY")


def _chunks(description: str, name: str) -> Iterator[bytes]:
    """Yields the bytes under a name of the store.

    Raises
    ------
    ArtifactError : the bytes cannot be read; it replaces the many kinds of errors of stores.
    """
    try:
        with default_storage.open(name) as stream:
            yield from stream.chunks(CHUNK)
    except FileNotFoundError:
        raise ArtifactError(f"{description} is not in the store") from None
    except Exception as error:
        reason = getattr(error, "strerror", None) or type(error).__name__  # no path: clients read this
        raise ArtifactError(f"{description} cannot be read from the store: {reason}") from error


def _name(digest: str) -> str:
    return f"artifacts/{digest[:2]}/{digest}"


def _signing(data: bytes, salt: Signing) -> hmac.HMAC:
    return salted_hmac(salt, data, secret=settings.ARTIFACT_KEY, algorithm="sha256")
