"""Rows from files and to files: csv, json, jsonl, and parquet where pandas and pyarrow are installed."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import msgspec
import typer

from vigia_ml.client.frames import import_pandas
from vigia_ml.errors import VigiaError

Row = dict[str, Any]
_SPANS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FORMULA = frozenset("=+-@\u2212")


class Format(StrEnum):
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    PARQUET = "parquet"


def format_of(path: str, given: Format | None) -> Format:
    """Returns the format of a file by its name; of standard input and output it is csv."""
    if given is not None:
        return given
    if path == "-":
        return Format.CSV
    suffix = Path(path).suffix.lower().removeprefix(".")
    names = {"ndjson": Format.JSONL, "pq": Format.PARQUET, "tsv": Format.CSV, "txt": Format.CSV}
    try:
        return names.get(suffix) or Format(suffix)
    except ValueError:
        known = ", ".join(Format)
        raise typer.BadParameter(f"{path}: name the format with --format ({known})") from None


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Yields a file, or standard input for ``-``."""
    if path == "-":
        yield sys.stdin.buffer
        return
    with Path(path).open("rb") as stream:
        yield stream


@contextmanager
def on_disk(path: str) -> Iterator[Path]:
    """Yields the path of a file; standard input (``-``) is copied into one."""
    if path != "-":
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "stdin"
        with copy.open("wb") as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream)
        yield copy


def read_json(stream: BinaryIO, kind: Format) -> Iterator[Row]:
    """Yields the objects of a JSON array, of one object, or of JSON lines.

    Raises
    ------
    VigiaError : the text is not such JSON.
    """
    rows: Iterable[Any]
    if kind is Format.JSON:
        value = _decoded(stream.read(), "the file")
        rows = value if isinstance(value, list) else [value]
    else:
        rows = (_decoded(line, f"line {number}") for number, line in enumerate(stream, 1) if line.strip())
    for row in rows:
        if not isinstance(row, dict):
            raise VigiaError("each row must be a JSON object", code="not_an_object")
        yield row


def _decoded(text: bytes, place: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise VigiaError(f"{place} is not valid JSON: {error}", code="invalid_json") from None


def read_frame(path: str, kind: Format) -> Any:
    """Returns a csv or parquet file as a pandas frame."""
    pandas = import_pandas()
    try:
        with opened(path) as stream:
            source = io.BytesIO(stream.read()) if path == "-" else stream
            return pandas.read_parquet(source) if kind is Format.PARQUET else pandas.read_csv(source)
    except ImportError as error:
        message = f"parquet needs pyarrow: pip install 'vigia-ml[models]' ({error})"
        raise VigiaError(message, code="needs_library") from None
    except ValueError as error:
        raise VigiaError(f"{path} cannot be read as {kind}: {error}", code="unreadable_file") from None


# -- writing -------------------------------------------------------------------------------------------


class Writer:
    """Writes rows to a file as they come; parquet and the columns of csv are an exception.

    A csv has the columns of the first rows. A parquet file is written at the end.
    """

    def __init__(self, path: str, kind: Format) -> None:
        self.path, self.kind, self.rows = path, kind, 0
        self._kept: list[Row] = []
        self._csv: csv.DictWriter[str] | None = None
        # A file appears under its name only when it is complete.
        self._partial = None if path == "-" else Path(f"{path}.partial")
        self._out: TextIO | None = None
        if kind is Format.PARQUET:
            import_pandas()
            if path == "-":
                raise typer.BadParameter("parquet is written to a file: pass -o FILE")
        elif self._partial is None:
            self._out = sys.stdout
        else:
            self._out = self._partial.open("w", encoding="utf-8", newline="")

    def write(self, rows: Sequence[Row]) -> None:
        """Writes rows in order."""
        if self.kind is Format.PARQUET:
            self._kept.extend(rows)
        elif self.kind is Format.CSV:
            self._write_csv(rows)
        else:
            for row in rows:
                text = msgspec.json.encode(row).decode()
                if self.kind is Format.JSON:
                    text = f"{',' if self.rows else '['}\n {text}"
                    self._stream.write(text)
                else:
                    self._stream.write(f"{text}\n")
                self.rows += 1
            return
        self.rows += len(rows)

    def close(self) -> None:
        """Completes the file."""
        if self.kind is Format.PARQUET:
            assert self._partial is not None
            frame = import_pandas().DataFrame([_parquet_ready(row) for row in self._kept])
            frame.to_parquet(self._partial, index=False)
        elif self.kind is Format.JSON:
            self._stream.write("\n]\n" if self.rows else "[]\n")
        self._end()
        if self._partial is not None:
            self._partial.replace(self.path)

    def discard(self) -> None:
        """Deletes an incomplete file."""
        self._end()
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)

    def _end(self) -> None:
        if self._out is not None and self._partial is not None:
            self._out.close()
        elif self._out is not None:
            self._out.flush()

    @property
    def _stream(self) -> TextIO:
        assert self._out is not None
        return self._out

    def _write_csv(self, rows: Sequence[Row]) -> None:
        if self._csv is None:
            names = list(dict.fromkeys(name for row in rows for name in row))
            self._csv = csv.DictWriter(self._stream, names, extrasaction="ignore", lineterminator="\n")
            if names:
                self._csv.writerow({name: neutral(name) for name in names})
        for row in rows:
            self._csv.writerow({name: csv_cell(value) for name, value in row.items()})


@contextmanager
def writing(path: str, kind: Format) -> Iterator[Writer]:
    """Yields a writer; after an error no file is left behind."""
    writer = Writer(path, kind)
    try:
        yield writer
        writer.close()
    except BaseException:
        writer.discard()
        raise


def csv_cell(value: object) -> object:
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False) if value else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return neutral(value) if isinstance(value, str) else value


def neutral(text: str) -> str:
    """Returns a text that no spreadsheet runs as a formula: the log may hold texts of strangers."""
    visible = next((char for char in text if unicodedata.category(char)[0] not in "ZC"), "")
    begins = unicodedata.normalize("NFKC", visible)[:1] in _FORMULA if visible else False
    return f"'{text}" if begins or text.startswith(("\t", "\r", "\n")) else text


def _parquet_ready(row: Mapping[str, Any]) -> Row:
    """Returns a row whose lists and objects are JSON texts: their types differ from row to row."""
    return {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value
        for name, value in row.items()
    }


# -- times ---------------------------------------------------------------------------------------------


def moment(text: str | None) -> str | dt.datetime | None:
    """Returns a time from ``30m``, ``12h``, ``7d`` or ``2w`` (before now), or the ISO 8601 text as it is."""
    if text is None:
        return None
    span = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip())
    if span is None:
        return text
    return dt.datetime.now(dt.UTC) - dt.timedelta(**{_SPANS[span[2]]: int(span[1])})
