"""Finding, opening and watching the CSV files that commands are given."""

from __future__ import annotations

import gzip
import os
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Final, cast

from vigia_ml.schema.csv_dialect import DELIMITERS, Told, encoding_named
from vigia_ml.schema.numerals import DECIMALS, THOUSANDS_WORDS, thousands_mark

PROGRESS_ROWS: Final = 200_000  # some ten seconds; smaller files are read without a word

DELIMITER_WORDS: Final = {"tab": "\t", "\\t": "\t", "pipe": "|"}


def find(given: str) -> Path:
    """The file `given` names: from here, else from the directory VIGIA_DATA_DIR.

    Raises
    ------
    FileNotFoundError : naming every place looked at.
    """
    path = Path(given).expanduser()
    places = [path]
    data_dir = os.environ.get("VIGIA_DATA_DIR")
    if data_dir and not path.is_absolute():
        places.append(Path(data_dir) / path)
    for place in places:
        if place.is_file():
            return place
    where = "" if data_dir else "; VIGIA_DATA_DIR is not set"
    raise FileNotFoundError(f"there is no file {' or '.join(map(str, places))}{where}")


def open_rows(path: Path) -> IO[bytes]:
    """The CSV's bytes, seekable; a name that ends in ``.gz`` is unpacked while it is read."""
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def stem(path: Path) -> str:
    """The name without ``.csv`` or ``.csv.gz``."""
    return Path(path.stem).stem if path.suffix == ".gz" else path.stem


def add_dialect_arguments(parser: ArgumentParser) -> None:
    """The options that say how a CSV is written; `told` reads them."""
    parser.add_argument("--delimiter", metavar="D", help="one of , ; | tab (recognised when not given)")
    parser.add_argument("--decimal", choices=tuple(DECIMALS), help="decimal mark (recognised when not given)")
    parser.add_argument(
        "--thousands",
        choices=THOUSANDS_WORDS,
        metavar="MARK",
        help="thousands mark, one of , . space apostrophe none (recognised when not given)",
    )
    parser.add_argument(
        "--encoding",
        metavar="NAME",
        help="encoding of the file, such as cp1252 or utf-16 (UTF-8 when not given)",
    )


def told(options: Mapping[str, Any]) -> Told:
    """What the options say. Raises `ValueError`."""
    given, encoding, thousands = options["delimiter"], options["encoding"], options["thousands"]
    return Told(
        delimiter(given) if given else None,
        options["decimal"],
        None if thousands is None else thousands_mark(thousands),
        encoding_named(encoding) if encoding else None,
    )


def delimiter(word: str) -> str:
    """One of `DELIMITERS` from what can be typed in a shell or an address. Raises `ValueError`."""
    found = DELIMITER_WORDS.get(word, word)
    if found not in DELIMITERS:
        raise ValueError(f"{word!r} is no delimiter: use , or ; or | or tab")
    return found


def progress(say: Callable[[str], None], verb: str) -> Callable[[int], None]:
    """A callback that is given the rows read so far and says so every `PROGRESS_ROWS` of them."""
    due = PROGRESS_ROWS

    def report(rows: int) -> None:
        nonlocal due
        if rows >= due:
            say(f"  {rows:,} rows {verb} …")
            due = rows - rows % PROGRESS_ROWS + PROGRESS_ROWS

    return report
