"""Training rows on their way into a dataset file. Imports nothing that reads or writes Parquet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vigia_ml.schema import DatasetSchema, Fault, Instance, InvalidRows
from vigia_ml.schema.faults import REPORTED_FAULTS


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


def valid_instances(schema: DatasetSchema, rows: Iterable[object]) -> list[Instance]:
    """Returns training rows that are decoded JSON objects, validated.

    Raises
    ------
    InvalidRows : with the faults of all rows.
    """
    good: list[Instance] = []
    faults: list[Fault] = []
    count = bad = 0
    for raw in rows:
        if len(faults) > REPORTED_FAULTS:
            break
        result = schema.read(raw, with_target=True)
        if isinstance(result, Instance):
            good.append(result)
        else:
            bad += 1
            faults.extend(fault.at(row=count) for fault in result)
        count += 1
    if faults:
        raise InvalidRows(faults, rows=count, bad=bad)
    return good
