"""Training rows on their way into a dataset file. Imports nothing that reads or writes Parquet."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Written:
    """A finished Parquet file: its content hash (of the bytes), row count and size in bytes."""

    path: Path
    sha256: str
    rows: int
    size: int

    @classmethod
    def of(cls, path: Path, rows: int) -> Written:
        """Hashes and measures a closed file with `rows` rows."""
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return cls(path, digest, rows, path.stat().st_size)
