"""Prepares a batch: checks the file and splits it into chunks, each a range of its bytes.

Three kinds of files are rewritten in the store first: a packed file is unpacked, a CSV of another encoding
becomes UTF-8, and a sandbox writes the rows of a Parquet file as lines of JSON, so that each row group is
read once. Chunks are inserted as they are found, and workers score them meanwhile. If the process dies, the
next one goes on behind the last chunk.
"""

from __future__ import annotations

import gzip
import logging
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from django.conf import settings

from core import disk
from core.errors import TooLarge
from predictions.batches import chunks, files, reading
from predictions.models import Batch, BatchChunk
from training.jobs.leases import Lease
from training.serving.engine_cache import Served
from vigia_ml import sandbox
from vigia_ml.engines import class_name
from vigia_ml.schema import DatasetSchema, Fault, InvalidRows
from vigia_ml.schema.csv_dialect import Told, Unreadable
from vigia_ml.schema.csv_reader import CsvReader
from vigia_ml.schema.faults import clip
from vigia_ml.schema.row_decoder import CompiledSchema
from vigia_ml.schema.row_keys import KEY_FIELD
from vigia_ml.schema.sections import BLOCK, first_row, sections, to_utf8

log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 2**24
"""Maximum bytes of a chunk of several rows; a chunk of long rows has fewer rows."""
INSERTED: Final = 20
"""Chunks that are inserted together; with the first ones, other workers can begin."""
MOST_RATIO: Final = 200
"""Maximum ratio of unpacked to packed bytes; files of text reach some 20."""
UNSUSPECTED: Final = 2**26
"""Unpacked bytes up to which any ratio is accepted."""
SANDBOX_MEMORY: Final = 2 * 2**30
SANDBOX_SECONDS: Final = 3_600.0


def prepare(lease: Lease, batch: Batch, served: Served, *, every_class: bool) -> Iterator[int]:
    """Inserts the batch's chunks; yields their number whenever some were inserted.

    Raises
    ------
    InvalidRows : the file itself is at fault: its header, its encoding, no rows. TooLarge : it unpacks to
        more than BATCH_MAX_BYTES. StoreUnavailable, SourceLost, FileChanged, SandboxFailed
    """
    if batch.read_whole:
        return
    if batch.prepared is None:
        lease.report("reading the file", 1)
        batch.prepared = _rows_as_they_are_read(lease, batch, served.schema) | {
            "results": _columns_of_results(served, every_class=every_class)
        }
        lease.report("splitting the file", 2, prepared=batch.prepared)
    yield from _split(lease, batch, served.compiled)
    if not batch.chunks.exists():
        noun = {"csv": "the CSV holds a header and no rows", "jsonl": "the file holds no rows"}
        message = f"{noun.get(batch.format, 'the Parquet file holds no rows')}; send at least one row"
        raise InvalidRows.single(None, "empty_file", message)
    lease.report("scoring", 2, read_whole=True)
    batch.read_whole = True


def _columns_of_results(served: Served, *, every_class: bool) -> dict[str, Any]:
    """Returns the arguments of `writing.header` for this version."""
    classes = served.engine.classes
    names = [class_name(label) for label in classes or ()] if every_class and served.by_class else []
    return {"probability": classes is not None, "classes": names}


@contextmanager
def rows_of(batch: Batch) -> Iterator[IO[bytes]]:
    """Opens the rows as they are read."""
    name = (batch.prepared or {}).get("name")
    with files.stored(files.path(batch, name)) if name else files.source(batch) as stream:
        yield stream


def _split(lease: Lease, batch: Batch, compiled: CompiledSchema) -> Iterator[int]:
    last = batch.chunks.order_by("-number").first()
    with rows_of(batch) as stream:
        reader = reading.reader_of(batch, stream, compiled)
        table = reader.reader.table if isinstance(reader, reading.CsvRows) else None
        if last is not None:
            start, line = last.end, _line_behind(stream, last)
        elif table is not None:
            start, line = first_row(stream, table), table.header_ends + 1
        else:
            start, line = _behind_mark(stream), 1
        found: list[Any] = []
        size = {"rows": settings.BATCH_CHUNK_ROWS, "most_bytes": CHUNK_BYTES}
        try:
            for section in sections(stream, start, line, table=table, **size):
                found.append(section)
                if len(found) >= INSERTED:
                    last, found = chunks.add(lease, batch, found, last), []
                    assert last is not None
                    lease.report("splitting the file", 2, rows=last.first_row + last.rows)
                    yield last.number + 1
        except Unreadable as error:
            raise reading.of_the_file(error) from None
        last = chunks.add(lease, batch, found, last)
        if last is not None:
            lease.report("splitting the file", 2, rows=last.first_row + last.rows)
            yield last.number + 1


def _line_behind(stream: IO[bytes], last: BatchChunk) -> int:
    """Returns the number of the line behind a chunk."""
    stream.seek(last.start)
    return last.line + len(stream.read(last.end - last.start).splitlines())


def _behind_mark(stream: IO[bytes]) -> int:
    """Returns the first byte behind a byte-order mark of UTF-8."""
    stream.seek(0)
    return 3 if stream.read(3) == b"\xef\xbb\xbf" else 0


# -- the rows as they are read -------------------------------------------------------------------------


def _rows_as_they_are_read(lease: Lease, batch: Batch, schema: DatasetSchema) -> dict[str, Any]:
    """Checks the file; rewrites rows that cannot be read by their bytes. Returns `Batch.prepared`."""
    name = ""
    if batch.gzip:
        name = files.attempt_name("unpacked", lease.owner, "rows")
        with files.source(batch) as stream:
            files.write_pieces(batch, name, _reporting(lease, _unpacked(stream, batch)))
    with files.stored(files.path(batch, name)) if name else files.source(batch) as stream:
        if batch.format == Batch.Format.PARQUET:
            return _from_parquet(lease, batch, schema, stream)
        if batch.format == Batch.Format.JSONL:
            return {"name": name}
        reader = CsvReader(stream, schema, with_target=False, told=Told(**batch.dialect))  # type: ignore[arg-type]
        prepared = {"name": name, "dialect": reader.dialect.described}
        if reader.table.encoding == "utf-8":
            return prepared
        recoded = files.attempt_name("recoded", lease.owner, "csv")
        try:
            files.write_pieces(batch, recoded, _reporting(lease, to_utf8(stream, reader.table)))
        except Unreadable as error:
            raise reading.of_the_file(error) from None
        return prepared | {"name": recoded, "recoded": True}


def _reporting(lease: Lease, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Passes pieces on; a cancelled batch stops here, and so does one of more than BATCH_MAX_BYTES."""
    size = reported = 0
    for piece in pieces:
        size += len(piece)
        if size > settings.BATCH_MAX_BYTES:
            raise _too_large()
        if size - reported > 2**27:
            lease.report(f"reading the file: {size // 2**20:,} MiB", 1)
            reported = size
        yield piece


def _too_large() -> TooLarge:
    return TooLarge(
        f"the rows of the file have more than {settings.BATCH_MAX_BYTES:,} bytes as text (BATCH_MAX_BYTES): "
        "send several batches"
    )


def _unpacked(stream: IO[bytes], batch: Batch) -> Iterator[bytes]:
    size = 0
    try:
        with gzip.GzipFile(fileobj=stream) as unpacked:
            while piece := unpacked.read(BLOCK):
                size += len(piece)
                if size > UNSUSPECTED and size > MOST_RATIO * max(batch.source_size, 1):
                    raise TooLarge(
                        f"the packed file has {batch.source_size:,} bytes and unpacks to more than "
                        f"{MOST_RATIO} times as many: send it unpacked"
                    )
                yield piece
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        message = f"the file is not valid gzip: {error}"
        raise InvalidRows.single(None, "malformed_gzip", message) from None


def _from_parquet(lease: Lease, batch: Batch, schema: DatasetSchema, stream: IO[bytes]) -> dict[str, Any]:
    name = files.attempt_name("lines", lease.owner, "jsonl")
    limits: dict[str, Any] = {
        "memory": SANDBOX_MEMORY, "seconds": SANDBOX_SECONDS, "file_size": settings.BATCH_MAX_BYTES
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
        place = Path(directory)
        disk.check_reserve(directory, batch.source_size)
        with (place / "rows.parquet").open("wb") as target:
            shutil.copyfileobj(stream, target, BLOCK)
        module = "vigia_ml.fitting.parquet_lines"
        try:
            columns = sandbox.call(f"{module}:columns", directory=place, **limits)
            read = _columns_to_read(schema, columns)
            sandbox.call(f"{module}:dump", read, directory=place, **limits)
        except sandbox.SandboxFailed as error:
            if error.reason == "refused":
                raise InvalidRows.single(None, "malformed_parquet", str(error)) from None
            if error.reason == "output":
                raise _too_large() from None
            raise
        (place / "rows.parquet").unlink()
        with sandbox.open_file(place, "rows.jsonl") as lines:
            files.write_pieces(batch, name, _reporting(lease, iter(lambda: lines.read(BLOCK), b"")))
    return {"name": name}


def _columns_to_read(schema: DatasetSchema, columns: object) -> list[str | None]:
    """Returns the file's column for each column of the schema, and for the key; None where it has none.

    Raises
    ------
    InvalidRows : in the words for the header of a CSV.
    """
    names = columns if isinstance(columns, list) else []
    faults: list[Fault] = []
    found: dict[str, str] = {}
    for name in map(str, names):
        role, column = schema.resolve(name)
        if role == "unknown":
            message = f"{clip(name)!r} is not a column of this model"
            faults.append(Fault(clip(name), "unknown_column", message, allowed=schema.names))
        elif role in ("feature", "key"):
            canonical = column.name if column else KEY_FIELD
            if canonical in found:
                message = f"{clip(name)!r} stands in the header twice (also as {clip(found[canonical])!r})"
                faults.append(Fault(clip(name), "duplicate_column", message))
            found[canonical] = name
    faults += [
        Fault(column.name, "missing_column", f"column {column.name!r} is missing")
        for column in schema.columns
        if not column.nullable and column.name not in found
    ]
    if faults:
        words = "; ".join(fault.message for fault in faults[:5])
        raise InvalidRows(faults, message=f"the columns do not match: {words}")
    return [found.get(name) for name in (*schema.names, KEY_FIELD)]
