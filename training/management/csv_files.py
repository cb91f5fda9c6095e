"""CSV files of commands: lookup, opening, dialect options and progress."""

from __future__ import annotations

import csv
import gzip
import os
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, TextIO, cast

from vigia_ml.schema.csv_dialect import DELIMITERS, Told, encoding_named
from vigia_ml.schema.numerals import DECIMALS, THOUSANDS_WORDS, thousands_mark

PROGRESS_ROWS: Final = 200_000  # some ten seconds; smaller files print no progress

DELIMITER_WORDS: Final = {"tab": "\t", "\\t": "\t", "pipe": "|"}


def find(name: str) -> Path:
    """Returns the path of a file in the working directory, else in the directory VIGIA_DATA_DIR.

    Raises
    ------
    FileNotFoundError : lists every path that was tried.
    """
    path = Path(name).expanduser()
    places = [path]
    data_dir = os.environ.get("VIGIA_DATA_DIR")
    if data_dir and not path.is_absolute():
        places.append(Path(data_dir) / path)
    for place in places:
        if place.is_file():
            return place
    hint = "" if data_dir else "; VIGIA_DATA_DIR is not set"
    raise FileNotFoundError(f"there is no file {' or '.join(map(str, places))}{hint}")


def open_rows(path: Path) -> IO[bytes]:
    """Opens a CSV as a seekable stream of bytes; unpacks a file whose name ends in ``.gz``."""
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def stem(path: Path) -> str:
    """Returns the file name without ``.csv`` or ``.csv.gz``."""
    return Path(path.stem).stem if path.suffix == ".gz" else path.stem


def add_dialect_arguments(parser: ArgumentParser) -> None:
    """Adds the options of a CSV's dialect; `told` reads them."""
    parser.add_argument("--delimiter", metavar="D", help="delimiter: one of , ; | tab (default: detected)")
    parser.add_argument("--decimal", choices=tuple(DECIMALS), help="decimal mark (default: detected)")
    parser.add_argument(
        "--thousands",
        choices=THOUSANDS_WORDS,
        metavar="MARK",
        help="thousands separator: one of , . space apostrophe none (default: detected)",
    )
    parser.add_argument(
        "--encoding",
        metavar="NAME",
        help="encoding of the file, such as cp1252 or utf-16 (default: UTF-8)",
    )


def told(options: Mapping[str, Any]) -> Told:
    """Returns the dialect that the options name. Raises `ValueError`."""
    mark, encoding, thousands = options["delimiter"], options["encoding"], options["thousands"]
    return Told(
        delimiter(mark) if mark else None,
        options["decimal"],
        None if thousands is None else thousands_mark(thousands),
        encoding_named(encoding) if encoding else None,
    )


def delimiter(word: str) -> str:
    """Returns the one of `DELIMITERS` that a word of a shell or a URL names. Raises `ValueError`."""
    mark = DELIMITER_WORDS.get(word, word)
    if mark not in DELIMITERS:
        raise ValueError(f"{word!r} is no delimiter: use , or ; or | or tab")
    return mark


@contextmanager
def refused_file(name: str, directories: Iterable[Path], say: Callable[[str], None]) -> Iterator[TextIO]:
    """Opens a CSV for bad rows in the first writable one of the directories.

    The file has a temporary name until the end, and is kept only if it holds rows, whether or not the load
    succeeded.
    """
    reasons: list[str] = []
    for directory in directories:
        try:
            stream = temporary_file(directory)
            break
        except OSError as error:
            reasons.append(str(error))
    else:
        raise OSError(f"{name} cannot be written: {', '.join(reasons)}")
    temporary = Path(stream.name)
    target = temporary.parent / name
    try:
        with stream:
            yield stream
    finally:
        with temporary.open(encoding="utf-8", newline="") as lines:
            rows = max(0, sum(1 for _ in csv.reader(lines)) - 1)
        if rows:
            temporary.replace(target)
        else:
            temporary.unlink()
        say(f"{rows:,} bad rows set aside in {target}" if rows else "no bad rows")


def temporary_file(directory: Path) -> TextIO:
    file = tempfile.NamedTemporaryFile(  # noqa: SIM115
        "w", encoding="utf-8", newline="", dir=directory, prefix=".refused-", delete=False
    )
    return cast("TextIO", file)


def progress(say: Callable[[str], None], verb: str) -> Callable[[int], None]:
    """Returns a callback that takes the number of rows so far and prints it every `PROGRESS_ROWS` rows."""
    due = PROGRESS_ROWS

    def report(rows: int) -> None:
        nonlocal due
        if rows >= due:
            say(f"  {rows:,} rows {verb} …")
            due = rows - rows % PROGRESS_ROWS + PROGRESS_ROWS

    return report
