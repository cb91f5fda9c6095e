"""Copies a CSV to the place from which the next start trains the first version."""

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
    """Copies a CSV so that it can be read without a declared dialect; returns whether it was rewritten.

    A file whose dialect is recognised is copied unchanged. Any other file is rewritten in UTF-8 with commas
    between cells and points in numbers, without rows that have no target.

    Parameters
    ----------
    open_source : opens the CSV, binary and seekable. dialect : the CSV's dialect.
    skip_unlabelled : whether rows without a target exist and are left out.
    """
    with open_source() as stream:
        unchanged = not skip_unlabelled and _is_recognised(stream, schema, dialect)
    with open_source() as stream:
        if unchanged:
            shutil.copyfileobj(stream, target)
            return False
        _rewrite(stream, target, schema, dialect)
    return True


def _rewrite(stream: IO[bytes], target: IO[bytes], schema: DatasetSchema, dialect: Dialect) -> None:
    table = Table(stream, dialect.told, skip_blank_rows=True)
    numbers = NumberFormat(dialect.decimal, dialect.thousands)
    kept = [place for place, name in enumerate(table.header) if schema.role(name) != "unknown"]
    columns = [schema.resolve(table.header[place])[1] for place in kept]
    with io.TextIOWrapper(target, encoding="utf-8", newline="", write_through=True) as plain:
        writer = csv.writer(plain, lineterminator="\n")
        writer.writerow(table.header[place] for place in kept)
        for _, cells in table.rows():
            row = [_cell(column, cells[place], numbers) for column, place in zip(columns, kept, strict=True)]
            if all(cell for column, cell in zip(columns, row, strict=True) if column is schema.target):
                writer.writerow(row)
    table.close()


def _cell(column: Column | None, cell: str, numbers: NumberFormat) -> str:
    if column is None:
        return cell
    try:
        value = column.from_text(cell, numbers=numbers)
    except BadValue as bad:  # a missing target; all other cells are valid
        return "" if bad.fault.code == "null_not_allowed" else cell
    if value is None:
        return ""
    return repr(value) if column.is_numeric else cell


def _is_recognised(stream: IO[bytes], schema: DatasetSchema, dialect: Dialect) -> bool:
    try:
        recognised = CsvReader(stream, schema, with_target=True).dialect  # type: ignore[arg-type]
    except InvalidRows:
        return False
    return recognised.told == dialect.told
