"""The rows of a CSV, left where the next start trains the first version from them."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from typing import IO

from vigia_ml.schema import Column, DatasetSchema, InvalidRows
from vigia_ml.schema.columns import BadValue
from vigia_ml.schema.csv_dialect import Dialect, Table
from vigia_ml.schema.csv_reader import CsvReader
from vigia_ml.schema.numerals import NumberFormat


def write(
    open_source: Callable[[], IO[bytes]],
    target: IO[bytes],
    schema: DatasetSchema,
    dialect: Dialect,
    *,
    skip_unlabelled: bool,
) -> bool:
    """Copies a CSV so that it can be read without being told how; whether that took rewriting.

    A file that is recognised as it was read is copied as it is. Another one is written anew in UTF-8 with
    commas between cells and points in numbers, without rows that have no target.

    Parameters
    ----------
    open_source : opens the CSV, binary and seekable. dialect : how it was read.
    skip_unlabelled : whether there are rows without a target, to be left out.
    """
    with open_source() as stream:
        as_it_is = not skip_unlabelled and _is_recognised(stream, schema, dialect)
    with open_source() as stream:
        if as_it_is:
            shutil.copyfileobj(stream, target)
            return False
        _rewrite(stream, target, schema, dialect)
    return True


def _rewrite(stream: IO[bytes], target: IO[bytes], schema: DatasetSchema, dialect: Dialect) -> None:
    table = Table(stream, dialect.told, skip_blank_rows=True)
    numbers = NumberFormat(dialect.decimal, dialect.thousands)
    kept = [place for place, name in enumerate(table.header) if schema.role(name) != "unknown"]
    columns = [_column(schema, table.header[place]) for place in kept]
    with io.TextIOWrapper(target, encoding="utf-8", newline="", write_through=True) as plain:
        writer = csv.writer(plain, lineterminator="\n")
        writer.writerow(table.header[place] for place in kept)
        for _, cells in table.rows():
            row = [_cell(column, cells[place], numbers) for column, place in zip(columns, kept, strict=True)]
            if all(cell for column, cell in zip(columns, row, strict=True) if column is schema.target):
                writer.writerow(row)
    table.close()


def _column(schema: DatasetSchema, name: str) -> Column | None:
    return schema.find(name) or (schema.target if schema.role(name) == "target" else None)


def _cell(column: Column | None, cell: str, numbers: NumberFormat) -> str:
    if column is None:
        return cell
    try:
        value = column.from_text(cell, numbers=numbers)
    except BadValue as bad:  # a target that is missing; every other cell was read before
        return "" if bad.fault.code == "null_not_allowed" else cell
    if value is None:
        return ""
    return repr(value) if column.is_numeric else cell


def _is_recognised(stream: IO[bytes], schema: DatasetSchema, dialect: Dialect) -> bool:
    try:
        found = CsvReader(stream, schema, with_target=True).dialect  # type: ignore[arg-type]
    except InvalidRows:
        return False
    return found.told == dialect.told
