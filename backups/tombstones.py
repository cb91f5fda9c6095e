"""Tombstones: what was erased since a backup, in a file beside the backups, so that it stays erased.

The database records every erasure in the transaction that erases (`predictions_erasure`). This module adds
the records that are new to `tombstones.jsonl`, one JSON object a line with a digest; it never removes a line.
A line names a row by its id and a time, and holds no data of a person.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from backups import database
from backups.database import Database
from backups.errors import BackupError
from backups.places import Bucket, Folder

FILE: Final = "tombstones.jsonl"
FIELDS: Final = ("id", "kind", "reference", "moment", "at")

Tombstones = dict[str, Mapping[str, Any]]
"""By their ids."""


def line(entry: Mapping[str, Any]) -> bytes:
    content = {name: entry[name] for name in FIELDS}
    return json.dumps({**content, "sha256": _digest(content)}, separators=(",", ":")).encode() + b"\n"


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def parse(content: bytes, label: str) -> Tombstones:
    """Parses the file; raises as `_entries` does."""
    return {entry["id"]: entry for entry in _entries(content, label)}


def _entries(content: bytes, label: str) -> Iterator[dict[str, Any]]:
    """Yields the records one by one: the file may have a million.

    A last line without its end belongs to an interrupted append; the next append writes its record again.

    Raises
    ------
    BackupError : another line is damaged.
    """
    stream = io.BytesIO(content)
    for number, text in enumerate(stream, 1):
        entry = _entry(text)
        if entry is not None:
            yield entry
        elif text.strip() and text.endswith(b"\n") and not _was_interrupted(text[:-1], stream):
            raise BackupError(
                f"{label}, line {number} is damaged: restore the file from a copy, or remove the line if you "
                "know what it recorded"
            )


def _was_interrupted(start: bytes, later: io.BytesIO) -> bool:
    """Returns whether a line is the beginning of a line that follows it, as an interrupted append leaves."""
    position = later.tell()
    found = any(line.startswith(start) for line in later)
    later.seek(position)
    return found


def _entry(text: bytes) -> dict[str, Any] | None:
    try:
        raw = json.loads(text)
        content = {name: raw[name] for name in FIELDS}
    except (ValueError, KeyError, TypeError):
        return None
    return content if raw.get("sha256") == _digest(content) else None


def read(place: Folder | Bucket) -> Tombstones | None:
    """Returns the tombstones beside the backups; None without the file."""
    content = place.read(FILE)
    return None if content is None else parse(content, f"{place.label}/{FILE}")


def add(place: Folder | Bucket, entries: Iterable[Mapping[str, Any]]) -> int:
    """Appends the entries that the file does not hold yet; makes the file; returns their number."""
    content = place.read(FILE)
    known = {entry["id"] for entry in _entries(content or b"", f"{place.label}/{FILE}")}
    new = [entry for entry in entries if entry["id"] not in known]
    if new or content is None:
        place.append(FILE, b"".join(map(line, new)))
    return len(new)


def export(source: Database, place: Folder | Bucket) -> int:
    """Appends the erasures that the database has recorded since the last time."""
    with source.connect() as connection:
        return add(place, database.erasures(connection))
