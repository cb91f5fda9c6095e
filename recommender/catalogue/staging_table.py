"""A file on its way into the database: copied into a temporary table, where what is wrong with it is found
before anything is changed. Memory does not grow with the file, neither for good rows nor for bad ones.

Its statements are put together from names of ours alone.
"""
# ruff: noqa: S608

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Self, TextIO, TypeVar

from django.db import connection

from recommender.files import Rows
from vigia_ml.schema import Fault, InvalidRows
from vigia_ml.schema.faults import REPORTED_FAULTS

T = TypeVar("T")
Progress = Callable[[int], None]
"""Called with the number of rows read so far."""
ROWS: Final = "incoming"
REFUSED: Final = "refused"


def unheard(rows: int) -> None:
    """Nobody wants to know how far it is."""


class Staging(Generic[T]):
    """The temporary tables of one load, which takes place within a transaction; a context manager.

    ``incoming`` holds `columns` (with the line of each row first), ``refused`` a line and its reasons.

    Parameters
    ----------
    columns : name -> type in SQL. cells : a row of the file -> its values in that order.
    """

    def __init__(self, columns: dict[str, str], cells: Callable[[T], Sequence[Any]]) -> None:
        self._columns, self._cells = columns, cells
        self.rows = self.bad = self.left_out = 0
        self._faults: list[Fault] = []
        said = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        self.execute(f"CREATE TEMPORARY TABLE {ROWS} (line bigint NOT NULL, {said}) ON COMMIT DROP")
        self.execute(f"CREATE TEMPORARY TABLE {REFUSED} (line bigint, reasons text) ON COMMIT DROP")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # else they go with what is rolled back
            self.execute(f"DROP TABLE {ROWS}, {REFUSED}")

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        """How many rows it was about."""
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return int(cursor.rowcount)

    def fill(self, rows: Rows[T], progress: Progress) -> None:
        """Reads the file into the tables."""
        names = ", ".join(f'"{name}"' for name in ("line", *self._columns))
        for chunk in rows.chunks():
            with connection.cursor() as cursor:
                with cursor.copy(f"COPY {ROWS} ({names}) FROM STDIN") as copy:
                    for line, row in chunk.good:
                        copy.write_row((line, *self._cells(row)))
                if chunk.refused:
                    with cursor.copy(f"COPY {REFUSED} FROM STDIN") as copy:
                        for line, faults in chunk.refused:
                            copy.write_row((line, said_of(faults)))
                            self._remember(faults)
            self.rows += chunk.rows
            self.bad += len(chunk.refused)
            self.left_out += chunk.left_out
            progress(self.rows)
        self.execute(f"ANALYZE {ROWS}")

    def refuse(self, question: str, field: str, code: str, message: str) -> None:
        """Sets rows aside that are wrong by what else there is.

        Parameters
        ----------
        question : gives line and value of each of them. message : of the fault; ``{}`` stands for the value.
        """
        self.execute(f"CREATE TEMPORARY TABLE wrong (line, value) ON COMMIT DROP AS {question}")
        found = self.execute(f"DELETE FROM {ROWS} USING wrong WHERE {ROWS}.line = wrong.line")
        if found:
            with connection.cursor() as cursor:
                cursor.execute("SELECT line, value FROM wrong ORDER BY line LIMIT %s", [REPORTED_FAULTS + 1])
                for line, value in cursor.fetchall():
                    self._remember([Fault(field, code, message.format(value), line=line)])
            self.execute(
                f"INSERT INTO {REFUSED} SELECT line, replace(%s, '{{}}', value::text) FROM wrong",
                [f"{code}: {message}"],
            )
            self.bad += found
        self.execute("DROP TABLE wrong")

    def _remember(self, faults: Sequence[Fault]) -> None:
        if len(self._faults) <= REPORTED_FAULTS:
            self._faults += faults

    def check(self, rows: Rows[T], refused: TextIO | None) -> None:
        """Writes what was refused into `refused`; without it, a file with bad rows is refused whole.

        Raises
        ------
        InvalidRows : for bad rows unless `refused` is given, and for a file without any good one.
        """
        if self.bad and refused is None:
            faults = sorted(self._faults, key=lambda fault: fault.line or 0)
            said = f"{self.bad:,} of {self.rows:,} rows {'is' if self.bad == 1 else 'are'} invalid"
            raise InvalidRows(faults, rows=self.rows, bad=self.bad, message=said)
        if self.bad and refused is not None:
            self._write_refused(rows, refused)
        if self.bad == self.rows:
            said = "the file holds no row that could be used" if self.rows else "the file holds no rows"
            raise InvalidRows([Fault(None, "empty_file", said)], message=said)

    def _write_refused(self, rows: Rows[T], stream: TextIO) -> None:
        """The refused rows as they stand in the file, which is read again for them."""
        writer = csv.writer(stream)
        writer.writerow(["line", "reasons", *rows.header])
        with connection.chunked_cursor() as cursor:
            cursor.execute(f"SELECT line, reasons FROM {REFUSED} ORDER BY line")
            refused = iter(cursor)
            wanted = next(refused, None)
            for line, cells in rows.again():
                if wanted is None:
                    break
                if line == wanted[0]:
                    writer.writerow([line, wanted[1], *cells])
                    wanted = next(refused, None)


def said_of(faults: Sequence[Fault]) -> str:
    """All reasons of one row."""
    return "; ".join(f"{fault.code}: {fault.message}" for fault in faults)
