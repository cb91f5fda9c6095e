"""Reads the rows and answers that came with a graph. No Django here.

The Parquet files come from outside, and a library of native code decodes them. So `dump` runs in a sandbox
(see `vigia_ml.sandbox`) and writes plain text; the caller reads that text back (`rows`, `answers`), validates
each row by the schema, like every row from a client, and trusts nothing else of the sandbox.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from vigia_ml.errors import VigiaError
from vigia_ml.schema import DatasetSchema, Fault, Instance, InvalidRows
from vigia_ml.schema.faults import REPORTED_FAULTS, clip, counted
from vigia_ml.schema.row_keys import KEY_FIELD

Floats = npt.NDArray[np.float64]

BATCH: Final = 5_000
MOST_ROWS: Final = {"train": 10_000_000, "holdout": 2_000_000, "answers": 2_000_000}
"""Rows of each file. A file of kilobytes may hold more rows than a machine can read."""
LONGEST_LINE: Final = 2**26
"""Bytes of one row as text."""
SHOWN_FAULTS: Final = 3
ANSWERS: Final = "answers.f8"


class BadFile(VigiaError):
    """A file of rows or answers cannot be read."""

    code = "bad_file"


def columns_of(schema: DatasetSchema) -> list[str]:
    """Returns the columns of a file of rows, as `vigia_ml.fitting.parquet.DatasetWriter` writes them."""
    return [*(column.name for column in schema.stored()), KEY_FIELD]


# -- in the sandbox ------------------------------------------------------------------------------------


def dump(directory: Path, columns: list[str], outputs: list[str]) -> dict[str, int]:
    """Decodes ``train.parquet``, ``holdout.parquet`` and ``answers.parquet`` of a directory.

    It writes ``train.jsonl`` and ``holdout.jsonl`` (one array of cells a line, in the order of `columns`),
    and `ANSWERS` (doubles, row by row, little-endian).

    Returns
    -------
    The number of rows of each file.

    Raises
    ------
    BadFile : a file is not Parquet, has other columns, or cells that are neither numbers nor texts nor times.
    """
    rows = {part: _dump_rows(directory, part, columns) for part in ("train", "holdout")}
    return rows | {"answers": _dump_answers(directory, outputs)}


def _dump_rows(directory: Path, part: str, columns: list[str]) -> int:
    encode = msgspec.json.Encoder().encode
    rows = 0
    with _parquet(directory, part, columns) as file, (directory / f"{part}.jsonl").open("wb") as target:
        for field in file.schema_arrow:
            kind = field.type.value_type if kinds.is_dictionary(field.type) else field.type
            known = (
                kinds.is_boolean, kinds.is_integer, kinds.is_floating, kinds.is_string, kinds.is_large_string,
                kinds.is_date, kinds.is_timestamp, kinds.is_null,
            )  # fmt: skip
            if not any(is_known(kind) for is_known in known):
                raise BadFile(f"{part}: column {clip(field.name)} holds {kind}, which no column accepts")
        for batch in file.iter_batches(BATCH, columns=columns):
            cells = [batch.column(batch.schema.get_field_index(name)).to_pylist() for name in columns]
            for values in cells:
                if float in set(map(type, values)):
                    mark_infinities(values)
            target.writelines(encode(row) + b"\n" for row in zip(*cells, strict=True))
            rows += batch.num_rows
    return rows


def mark_infinities(values: list[Any]) -> None:
    """Replaces infinities by texts, which no column of numbers accepts; JSON would turn them into nulls."""
    for place, value in enumerate(values):
        if isinstance(value, float) and math.isinf(value):
            values[place] = str(value)


def _dump_answers(directory: Path, outputs: list[str]) -> int:
    rows = 0
    with _parquet(directory, "answers", outputs) as file, (directory / ANSWERS).open("wb") as target:
        for batch in file.iter_batches(BATCH, columns=outputs):
            try:
                columns = [
                    batch.column(batch.schema.get_field_index(name)).cast("float64") for name in outputs
                ]
            except ValueError as error:
                raise BadFile(f"answers: a column holds no numbers: {clip(str(error))}") from error
            values = [column.to_numpy(zero_copy_only=False) for column in columns]
            target.write(np.column_stack(values).astype("<f8").tobytes())
            rows += batch.num_rows
    return rows


@contextmanager
def _parquet(directory: Path, part: str, columns: Sequence[str]) -> Iterator[Any]:
    try:
        file = pq.ParquetFile(directory / f"{part}.parquet")
    except (pa.ArrowException, OSError) as error:
        raise BadFile(f"{part}: the file is not Parquet: {clip(str(error))}") from error
    with file:
        names = file.schema_arrow.names
        if file.metadata.num_rows > MOST_ROWS[part]:
            raise BadFile(
                f"{part}: the file has {file.metadata.num_rows:,} rows; accepted: at most "
                f"{MOST_ROWS[part]:,}: send a sample of the rows"
            )
        missing = [name for name in columns if name not in names]
        more = [name for name in names if name not in columns]
        if missing or more or len(set(names)) != len(names):
            wrong = [f"lacks {clip(name)}" for name in missing] + [f"also has {clip(name)}" for name in more]
            raise BadFile(f"{part}: the file {'; '.join(wrong[:5]) or 'has a column twice'}")
        try:
            yield file
        except (pa.ArrowException, OSError) as error:
            raise BadFile(f"{part}: the file cannot be decoded: {clip(str(error))}") from error


# -- outside -------------------------------------------------------------------------------------------


def rows(directory: Path, part: str, schema: DatasetSchema, noun: str) -> Iterator[list[Instance]]:
    """Yields the validated rows of a part in batches.

    Parameters
    ----------
    part : ``train`` or ``holdout``. noun : name of its rows in the plural, for the message.

    Raises
    ------
    InvalidRows : rows do not fit the schema; the message quotes the first faults. BadFile : see `dump`.
    """
    names = columns_of(schema)
    faults: list[Fault] = []
    position = bad = 0
    batch: list[Instance] = []
    for cells in _lines(directory / f"{part}.jsonl"):
        if not isinstance(cells, list) or len(cells) != len(names):
            raise BadFile(f"{part}: a row has another number of cells")
        read = schema.read(dict(zip(names, cells, strict=True)), with_target=True)
        if isinstance(read, Instance):
            batch.append(read)
        else:
            bad += 1
            faults += [fault.at(row=position) for fault in read]
        position += 1
        if len(faults) > REPORTED_FAULTS:
            break
        if len(batch) >= BATCH and not faults:
            yield batch
            batch = []
    if faults:
        raise _unfit(faults, bad, position, noun)
    if batch:
        yield batch


def _unfit(faults: Sequence[Fault], bad: int, rows: int, noun: str) -> InvalidRows:
    first = "; ".join(
        f"row {fault.row}: {fault.message}{f', not {json.dumps(fault.value)}' if fault.has_value else ''}"
        for fault in faults[:SHOWN_FAULTS]
    )
    more = f"; and {counted(len(faults) - SHOWN_FAULTS, 'fault')} more" if len(faults) > SHOWN_FAULTS else ""
    message = f"{bad:,} of the first {rows:,} {noun} do not fit the schema of the push: {first}{more}"
    return InvalidRows(faults, rows=rows, bad=bad, message=message)


def answers(directory: Path, count: int, width: int) -> Floats:
    """Returns the answers that were sent, (count, width).

    Raises
    ------
    BadFile : there are more or fewer of them.
    """
    expected = count * width * 8
    with _opened(directory / ANSWERS) as stream:
        data = stream.read(expected + 1)
    if len(data) != expected:
        raise BadFile(
            f"answers: the file has another number of rows than the hold-out, which has {count:,}: send the "
            "answer to each hold-out row, in its order"
        )
    return np.frombuffer(data, dtype="<f8").astype(np.float64).reshape(count, width)


def _lines(path: Path) -> Iterator[Any]:
    decode = msgspec.json.Decoder().decode
    with _opened(path) as stream:
        while line := stream.readline(LONGEST_LINE):
            try:
                yield decode(line)
            except msgspec.DecodeError:
                raise BadFile(f"a row has more than {LONGEST_LINE:,} bytes of text") from None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a file of the sandbox, which may have put a link or a pipe there."""
    try:
        place = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise BadFile(f"{path.name} was not written: {error.strerror}") from error
    with os.fdopen(place, "rb") as stream:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise BadFile(f"{path.name} is not a file")
        yield stream
