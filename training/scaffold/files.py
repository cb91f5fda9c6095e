"""Finding, opening and watching the CSV files that commands are given."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, cast

PROGRESS_ROWS: Final = 200_000  # some ten seconds; smaller files are read without a word

TAB_WORDS = {"tab": "\t", "\\t": "\t"}


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


def delimiter(word: str) -> str:
    """``,``, ``;`` or a tab from what can be typed in a shell. Raises `ValueError`."""
    found = TAB_WORDS.get(word, word)
    if found not in (",", ";", "\t"):
        raise ValueError(f"{word!r} is no delimiter: use , or ; or tab")
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
