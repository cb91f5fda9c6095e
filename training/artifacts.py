"""The only place that reads or writes model bytes.

Bytes are stored under their sha256. Before anything is unpickled, digest and HMAC are checked on the very
bytes that will be unpickled; names come from the version's row alone, never from a user.
"""

from __future__ import annotations

import hashlib
import hmac
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as library_version
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage
from django.utils.crypto import salted_hmac

from training import engines
from training.errors import ArtifactError

if TYPE_CHECKING:
    from training.datasets import Written
    from training.models import Dataset, ModelVersion

LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "joblib")


@dataclass(frozen=True, slots=True)
class Stored:
    """Where bytes went: their digest, their signature and their length."""

    sha256: str
    hmac: str
    size: int


def libraries() -> dict[str, str]:
    """Versions of what an artifact depends on, in this process."""
    return {"python": platform.python_version()} | {name: library_version(name) for name in LIBRARIES}


def store(data: bytes) -> Stored:
    """Stores model bytes; the same bytes twice are stored once."""
    digest = hashlib.sha256(data).hexdigest()
    # Written even if the name is there: what is there may be damaged, and this repairs it.
    default_storage.save(_name(digest), ContentFile(data))
    return Stored(digest, _sign(data), len(data))


def fetch(version: ModelVersion) -> bytes:
    """The verified bytes of a version's artifact.

    Raises
    ------
    ArtifactError : when they are missing or are not, bit for bit, what was stored and signed.
    """
    try:
        with default_storage.open(_name(version.artifact_sha256)) as stream:
            data: bytes = stream.read()
    except FileNotFoundError:
        raise ArtifactError(f"the artifact of {version} is not in the store") from None
    if hashlib.sha256(data).hexdigest() != version.artifact_sha256:
        raise ArtifactError(f"the artifact of {version} was changed: its digest does not match its row")
    if not hmac.compare_digest(_sign(data), version.artifact_hmac):
        raise ArtifactError(f"the artifact of {version} was not signed with this service's ARTIFACT_KEY")
    return data


def load(version: ModelVersion) -> engines.Engine:
    """The version's engine, from verified bytes.

    Raises
    ------
    ArtifactError : see `fetch`; also when another scikit-learn made the artifact.
    """
    check_libraries(version)
    data = fetch(version)
    try:
        return engines.load(version.engine, data, version.dataset_schema)
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
        default_storage.save(name, File(stream))


@contextmanager
def dataset_file(dataset: Dataset) -> Iterator[Path]:
    """The dataset's Parquet file as a local path, verified against its row."""
    with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
        local = Path(directory) / "rows.parquet"
        try:
            with default_storage.open(dataset.storage_name) as source, local.open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)
        except FileNotFoundError:
            raise ArtifactError(f"dataset {dataset.sha256[:12]} is not in the store") from None
        with local.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != dataset.sha256:
                raise ArtifactError(f"dataset {dataset.sha256[:12]} was changed in the store")
        yield local


def _name(digest: str) -> str:
    return f"artifacts/{digest[:2]}/{digest}"


def _sign(data: bytes) -> str:
    return salted_hmac(
        "training.artifacts", data, secret=settings.ARTIFACT_KEY, algorithm="sha256"
    ).hexdigest()
