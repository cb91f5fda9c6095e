"""Reads a Parquet file of rows as lines of JSON, in a sandbox (see `vigia_ml.sandbox`). No Django here.

The file comes from outside, and a library of native code decodes it. The caller trusts nothing of the lines:
it validates each row by the schema, like every row from a client.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from vigia_ml.fitting.pushed_rows import BadFile, mark_infinities
from vigia_ml.schema.faults import clip

SOURCE: Final = "rows.parquet"
LINES: Final = "rows.jsonl"
BATCH: Final = 2_000
"""Rows in memory at once. A page of the file is decoded whole, whatever their number."""
BUFFER: Final = 2**20
"""Bytes read ahead of each column, so that a row group of any size is never in memory."""


def columns(directory: Path) -> list[str]:
    """Returns the names of the file's columns. Raises `BadFile`."""
    with _opened(directory) as file:
        names: list[str] = file.schema_arrow.names
        for field in file.schema_arrow:
            kind = field.type.value_type if kinds.is_dictionary(field.type) else field.type
            known = (
                kinds.is_boolean, kinds.is_integer, kinds.is_floating, kinds.is_string, kinds.is_large_string,
                kinds.is_date, kinds.is_timestamp, kinds.is_null,
            )  # fmt: skip
            if not any(is_known(kind) for is_known in known):
                raise BadFile(f"column {clip(field.name)} holds {kind}, which no column accepts")
        return names


def dump(directory: Path, read: list[str | None]) -> int:
    """Writes one array of cells a line, in the order of `read`; a column that is None is null.

    Returns
    -------
    The number of rows.
    """
    encode = msgspec.json.Encoder().encode
    rows = 0
    names = list(dict.fromkeys(name for name in read if name is not None))
    with _opened(directory) as file, (directory / LINES).open("wb") as target:
        try:
            for batch in file.iter_batches(BATCH, columns=names, use_threads=False):
                cells: list[list[Any]] = []
                for name in read:
                    if name is None:
                        cells.append([None] * batch.num_rows)
                        continue
                    values = batch.column(batch.schema.get_field_index(name)).to_pylist()
                    if float in set(map(type, values)):
                        mark_infinities(values)
                    cells.append(values)
                target.write(b"\n".join([*map(encode, zip(*cells, strict=True)), b""]))
                rows += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise BadFile(f"the file cannot be decoded: {clip(str(error))}") from error
    return rows


def _opened(directory: Path) -> Any:
    try:
        return pq.ParquetFile(directory / SOURCE, pre_buffer=False, buffer_size=BUFFER)
    except (pa.ArrowException, OSError) as error:
        raise BadFile(f"the file is not Parquet: {clip(str(error))}") from error
