"""A folder of exported days in the Hive layout: ``model=churn/day=2026-11-30/part-….parquet``.

A file appears whole or not at all. The mark `_SUCCESS` stands in the folder of a complete day; it is removed
before the files change and written after the last one.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from core.errors import Conflict
from core.uuid7 import lowest_at
from predictions.exports import days, rows
from predictions.exports.columns import ModelColumns
from predictions.exports.days import FORMAT, MANIFEST, PARTIAL, SUCCESS, Progress, StagedDay
from predictions.exports.window import Window
from training.models import RegisteredModel

_STAGING: Final = ".partial-"
_LOCK: Final = ".lock"


def export(
    model: RegisteredModel, window: Window, out: Path, progress: Progress = lambda *_: None
) -> Iterator[tuple[Path, dict[str, Any], bool]]:
    """Exports a window to a folder; yields (folder, manifest, whether it was written) of each day.

    A day is left as it is if its rows and outcomes have not changed since it was written.

    Raises
    ------
    Conflict : another process exports to the folder; or a day's files hold more than the window covers, and
        nothing was written.
    OSError, Unexportable : see `days.stage`; the days before are written.
    """
    target = out / f"model={model.name}"
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        parts = list(days.days_of(model, window, _held_days(target)))
        for part in parts:
            _check_covered(target / days.folder_name(part), part)
        columns = ModelColumns(model)
        for part in parts:
            folder = target / days.folder_name(part)
            held = manifest_of(folder)
            if held is not None and _is_current(model, folder, held, part):
                yield folder, held, False
                continue
            with tempfile.TemporaryDirectory(prefix=_STAGING, dir=out) as staging:
                staged = days.stage(model, columns, part, Path(staging), progress)
                _publish(staged, folder)
            yield folder, staged.manifest, True


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Holds the folder, and removes what a killed export has left."""
    with (out / _LOCK).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another export writes to {out}: wait for its end") from None
        for left in out.glob(f"{_STAGING}*"):
            shutil.rmtree(left)
        yield


def _held_days(target: Path) -> Iterator[dt.datetime]:
    """Yields the days that a folder holds: all rows of one of them may have been erased since."""
    for path in target.glob("day=*"):
        with suppress(ValueError):
            yield dt.datetime.strptime(path.name, "day=%Y-%m-%d").replace(tzinfo=dt.UTC)


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """Returns the manifest of a day's folder; None without one."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    return manifest


def _window_of(manifest: dict[str, Any]) -> Window:
    return Window(*(dt.datetime.fromisoformat(manifest[name]) for name in ("since", "until")))


def _check_covered(folder: Path, part: Window) -> None:
    held = manifest_of(folder)
    if held is None or part.covers(_window_of(held)):
        return
    raise Conflict(
        f"{folder} holds the predictions from {held['since']} to {held['until']}, and this window covers "
        f"only {part.since.isoformat()} to {part.until.isoformat()} of the day: widen the window, or choose "
        "another folder"
    )


def _is_current(model: RegisteredModel, folder: Path, held: dict[str, Any], part: Window) -> bool:
    """Returns whether the log holds what the day's files were written from."""
    whole = held["format"] == FORMAT and _window_of(held) == part
    present = all((folder / file["name"]).is_file() for file in held["files"])
    marked = (folder / SUCCESS).exists() == held["complete"]
    return (
        whole
        and present
        and marked
        and held["state"] == rows.state(model.pk, lowest_at(part.since), lowest_at(part.until))
    )


def _publish(staged: StagedDay, folder: Path) -> None:
    """Replaces a day's files, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUCCESS).unlink(missing_ok=True)
    names = {file["name"] for file in staged.manifest["files"]}
    for name in sorted(names):
        (staged.folder / (name + PARTIAL)).replace(folder / name)
    for path in folder.glob("part-*.parquet"):
        if path.name not in names:
            path.unlink()
    _write(staged.folder, folder / MANIFEST, days.encoded(staged.manifest))
    if staged.manifest["complete"]:
        _write(staged.folder, folder / SUCCESS, b"")
    for changed in (folder, folder.parent, folder.parent.parent):
        _sync(changed)


def _write(staging: Path, target: Path, data: bytes) -> None:
    partial = staging / (target.name + PARTIAL)
    with partial.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(target)


def _sync(folder: Path) -> None:
    """Makes renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
