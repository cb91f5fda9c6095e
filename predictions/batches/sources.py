"""The file of a batch: its format, and whether it is packed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from django.conf import settings

from core.errors import TooLarge
from predictions.batches import locations
from predictions.batches.requests import Source
from predictions.batches.uploads import Upload, new_folder
from predictions.models import Batch
from vigia_ml.errors import Malformed
from vigia_ml.schema import InvalidRows
from vigia_ml.schema.csv_dialect import Told
from vigia_ml.schema.faults import clip

CONTENT_TYPES: Final[dict[str, str]] = {
    "text/csv": Batch.Format.CSV,
    "application/vnd.apache.parquet": Batch.Format.PARQUET,
    "application/x-ndjson": Batch.Format.JSONL,
    "application/jsonl": Batch.Format.JSONL,
}
_ENDINGS: Final[dict[str, str]] = {
    "csv": Batch.Format.CSV, "tsv": Batch.Format.CSV, "txt": Batch.Format.CSV,
    "parquet": Batch.Format.PARQUET, "pq": Batch.Format.PARQUET,
    "jsonl": Batch.Format.JSONL, "ndjson": Batch.Format.JSONL,
}  # fmt: skip
_PARQUET: Final = b"PAR1"


@dataclass(frozen=True, slots=True)
class Packing:
    """Format of the rows of a file, and whether the file is a gzip file of them."""

    format: str
    is_gzip: bool = False


def packing_of(name: str, given: str | None = None, *, field: str = "format") -> Packing:
    """Returns the packing of a file by its name; `given` replaces the format of its ending.

    Parameters
    ----------
    field : part of the request that would name the format, for the error.

    Raises
    ------
    InvalidRows : the ending is not known and no format is given, or the format is not known.
    """
    lower = name.lower()
    is_gzip = lower.endswith(".gz")
    ending = lower.removesuffix(".gz").rpartition(".")[2]
    chosen = given or _ENDINGS.get(ending)
    allowed = tuple(Batch.Format.values)
    if chosen is None:
        message = f"the ending of {clip(name)} names no format: name the file .csv, or send format"
        raise InvalidRows.single(field, "unknown_format", message, allowed=allowed)
    if chosen not in Batch.Format.values:
        message = f"format must be one of: {', '.join(allowed)}"
        raise InvalidRows.single(field, "not_a_level", message, allowed=allowed)
    if is_gzip and chosen == Batch.Format.PARQUET:
        message = "Parquet is packed already: send the file without gzip"
        raise InvalidRows.single(field, "packed_parquet", message)
    return Packing(str(chosen), is_gzip)


def of_location(location: str, path: str, format: str | None, dialect: Told) -> Source:
    """Returns the source of a file in a declared location.

    Raises
    ------
    InvalidRows, TooLarge, Malformed : the file cannot be read, has too many bytes, or none.
    """
    with locations.open_file(location, path) as file:
        found, head = locations.fingerprint(file), file.read(len(_PARQUET))
    packing = packing_of(path, format)
    if not found.size:
        raise Malformed("the file is empty", code="empty_body")
    if found.size > settings.BATCH_MAX_BYTES:
        raise TooLarge(f"the file has {found.size:,} bytes; accepted: at most {settings.BATCH_MAX_BYTES:,}")
    if not packing.is_gzip:
        check_head(head, packing.format)
    return Source(
        folder=new_folder(),
        format=packing.format,
        location=location,
        path=path,
        fingerprint=asdict(found),
        source_size=found.size,
        gzip=packing.is_gzip,
        dialect=_stored(dialect),
    )


def of_upload(upload: Upload, format: str, dialect: Told) -> Source:
    """Returns the source of an uploaded file. Raises `Malformed` if it is of another format."""
    check_head(upload.head, format)
    return Source(
        folder=upload.folder,
        format=format,
        source_name=upload.name,
        source_size=upload.size,
        source_sha256=upload.sha256,
        dialect=_stored(dialect),
    )


def check_head(head: bytes, format: str) -> None:
    """Raises `Malformed` if a file begins as Parquet does and has another format, or the reverse."""
    is_parquet = head.startswith(_PARQUET)
    if is_parquet is not (format == Batch.Format.PARQUET):
        found = "a Parquet file" if is_parquet else "no Parquet file"
        raise Malformed(
            f"the format is {format}, but the file is {found}: correct the Content-Type, the name or the "
            "format of the file",
            code="wrong_format",
        )


def _stored(dialect: Told) -> dict[str, str]:
    return {name: value for name, value in asdict(dialect).items() if value is not None}
