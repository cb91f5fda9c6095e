"""The staging table: a file is copied into a temporary table and checked there before any table changes.
Memory does not grow with the file, neither for good rows nor for bad rows.

The SQL is composed of constant names only.
"""
# ruff: noqa: S608

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Self, TextIO, TypeVar

from django.db import connection

from recommender.files.tabular import FileRows
from vigia_ml.schema import Fault, InvalidRows
from vigia_ml.schema.faults import REPORTED_FAULTS

T = TypeVar("T")
Progress = Callable[[int], None]
"""Called with the number of rows read so far."""
ROWS: Final = "incoming"
REFUSED: Final = "refused"


class StagingTable(Generic[T]):
    """The temporary tables of one load within a transaction; a context manager.

    ``incoming`` holds the line of each row and `columns`; ``refused`` holds lines and their reasons.

    columns : name -> SQL type. cells : function from a row of the file to its values in that order.
    """

    def __init__(self, columns: dict[str, str], cells: Callable[[T], Sequence[Any]]) -> None:
        self._columns, self._cells = columns, cells
        self.rows = self.bad = self.left_out = 0
        self._faults: list[Fault] = []
        definitions = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        self.execute(f"CREATE TEMPORARY TABLE {ROWS} (line bigint NOT NULL, {definitions}) ON COMMIT DROP")
        self.execute(f"CREATE TEMPORARY TABLE {REFUSED} (line bigint, reasons text) ON COMMIT DROP")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # otherwise the rollback drops the tables
            self.execute(f"DROP TABLE {ROWS}, {REFUSED}")

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        """Executes a statement and returns its row count."""
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return int(cursor.rowcount)

    def fill(self, rows: FileRows[T], progress: Progress) -> None:
        """Copies the file into the tables."""
        names = ", ".join(f'"{name}"' for name in ("line", *self._columns))
        for chunk in rows.chunks():
            with connection.cursor() as cursor:
                with cursor.copy(f"COPY {ROWS} ({names}) FROM STDIN") as copy:
                    for line, row in chunk.good:
                        copy.write_row((line, *self._cells(row)))
                if chunk.refused:
                    with cursor.copy(f"COPY {REFUSED} FROM STDIN") as copy:
                        for line, faults in chunk.refused:
                            copy.write_row((line, reasons_text(faults)))
                            self._remember(faults)
            self.rows += chunk.rows
            self.bad += len(chunk.refused)
            self.left_out += chunk.left_out
            progress(self.rows)
        self.execute(f"ANALYZE {ROWS}")

    def refuse(self, query: str, field: str, code: str, message: str) -> None:
        """Moves rows that conflict with other rows or with the database to the refused ones.

        query : SELECT of the line and value of each such row. message : text of the fault; ``{}`` stands for
        the value.
        """
        self.execute(f"CREATE TEMPORARY TABLE wrong (line, value) ON COMMIT DROP AS {query}")
        count = self.execute(f"DELETE FROM {ROWS} USING wrong WHERE {ROWS}.line = wrong.line")
        if count:
            with connection.cursor() as cursor:
                cursor.execute("SELECT line, value FROM wrong ORDER BY line LIMIT %s", [REPORTED_FAULTS + 1])
                for line, value in cursor.fetchall():
                    self._remember([Fault(field, code, message.format(value), line=line)])
            self.execute(
                f"INSERT INTO {REFUSED} SELECT line, replace(%s, '{{}}', value::text) FROM wrong",
                [f"{code}: {message}"],
            )
            self.bad += count
        self.execute("DROP TABLE wrong")

    def _remember(self, faults: Sequence[Fault]) -> None:
        if len(self._faults) <= REPORTED_FAULTS:
            self._faults += faults

    def check(self, rows: FileRows[T], refused: TextIO | None) -> None:
        """Writes the refused rows to `refused`. Raises `InvalidRows` if the file has bad rows and `refused`
        is None, or if it has no good row."""
        if self.bad and refused is None:
            faults = sorted(self._faults, key=lambda fault: fault.line or 0)
            message = f"{self.bad:,} of {self.rows:,} rows {'is' if self.bad == 1 else 'are'} invalid"
            raise InvalidRows(faults, rows=self.rows, bad=self.bad, message=message)
        if self.bad and refused is not None:
            self._write_refused(rows, refused)
        if self.bad == self.rows:
            message = "the file has no valid row" if self.rows else "the file has no rows"
            raise InvalidRows.single(None, "empty_file", message)

    def _write_refused(self, rows: FileRows[T], stream: TextIO) -> None:
        """Reads the file again and writes its refused rows unchanged, with their reasons."""
        writer = csv.writer(stream)
        writer.writerow(["line", "reasons", *rows.header])
        with connection.chunked_cursor() as cursor:
            cursor.execute(f"SELECT line, reasons FROM {REFUSED} ORDER BY line")
            refused = iter(cursor)
            row = next(refused, None)
            for line, cells in rows.again():
                if row is None:
                    break
                if line == row[0]:
                    writer.writerow([line, row[1], *cells])
                    row = next(refused, None)


def reasons_text(faults: Sequence[Fault]) -> str:
    """Joins all reasons of one row."""
    return "; ".join(f"{fault.code}: {fault.message}" for fault in faults)
