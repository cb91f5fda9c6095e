"""Exports of the log: the service writes Parquet files as a job; the client downloads and verifies them."""

from __future__ import annotations

import hashlib
import re
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from vigia_ml.client.core import Core, Time, at, encoded, time_text
from vigia_ml.client.errors import UnexpectedAnswer
from vigia_ml.client.flow import Flow, Work
from vigia_ml.client.jobs import followed
from vigia_ml.client.progress import Progress, reporting
from vigia_ml.client.results import ExportedFile, LogExport
from vigia_ml.errors import VigiaError

_PATH: Final = re.compile(r"model=[a-z][a-z0-9_]*/day=\d{4}-\d\d-\d\d/[A-Za-z0-9_][A-Za-z0-9_.-]*")
_MARK: Final = "_SUCCESS"


def export_log(
    core: Core,
    model: str,
    folder: str | Path,
    *,
    since: Time,
    until: Time | None = None,
    progress: Progress = False,
) -> Flow[LogExport]:
    """Exports a window of the log as Parquet files with outcomes, one folder a day, and downloads them.

    The service writes the files as a job; `download_log_export` downloads the files of an earlier export.

    Parameters
    ----------
    folder : receives ``model=churn/day=2026-11-30/part-….parquet``; files that it holds already are kept.
    until : end, exclusive; default and latest: the end of the complete log, some seconds ago. The result says
        where the export ended.

    Raises
    ------
    RunFailed : the export failed or was cancelled.
    """
    window = {"since": time_text(since), "until": time_text(until)}
    body = encoded({name: text for name, text in window.items() if text})
    job = yield from core.post(at("models", model, "log-exports"), LogExport, body)
    return (yield from _fetch(core, job, Path(folder), progress))


def log_exports(core: Core, model: str, *, before: int | None = None) -> Flow[list[LogExport]]:
    """Returns the newest exports of a model's log without their files (`before`: with a smaller id)."""
    return (yield from core.get(at("models", model, "log-exports"), list[LogExport], {"before": before}))


def download_log_export(
    core: Core, model: str, id: int, folder: str | Path, *, progress: Progress = False
) -> Flow[LogExport]:
    """Downloads the files of an export, and waits for its end first.

    Raises
    ------
    RunFailed : the export failed or was cancelled. VigiaError : its files were removed.
    """
    job = yield from core.get(at("models", model, "log-exports", id), LogExport)
    return (yield from _fetch(core, job, Path(folder), progress))


def _fetch(core: Core, job: LogExport, folder: Path, progress: Progress) -> Flow[LogExport]:
    job = yield from followed(core, job, _address(job), f"export {job.id} of {job.model}", progress)
    if job.removed_at is not None:
        message = f"the files of export {job.id} were removed on {job.removed_at:%F}: export the window again"
        raise VigiaError(message, code="export_removed")
    yield from _download(core, job, folder, progress)
    return job


def _download(core: Core, job: LogExport, folder: Path, progress: Progress) -> Flow[None]:
    """Downloads the files that a folder does not hold yet; each appears whole."""
    outside = [file.path for file in job.files if not _PATH.fullmatch(file.path)]
    if outside:
        raise UnexpectedAnswer(f"the export names a file outside its dataset: {outside[0][:200]!r}")
    yield Work(partial(_clear, job, folder))
    with reporting(progress, f"files of export {job.id}") as report:
        for file in job.files:
            target = folder / file.path
            if not (yield Work(partial(_holds, target, file))):
                partial_file = target.with_name(f".{target.name}.partial")
                yield from core.download(f"{_address(job)}files/{quote(file.path)}", partial_file)
                yield Work(partial(_keep, partial_file, target, file))
            report(1, len(job.files))


def _address(job: LogExport) -> str:
    return at("models", job.model, "log-exports", job.id)


def _holds(target: Path, file: ExportedFile) -> bool:
    return target.is_file() and _digest(target) == file.sha256


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _clear(job: LogExport, folder: Path) -> None:
    """Makes the folders of the days. Removes the marks of days that change, and the files of earlier exports
    of these days, whose rows would stand twice in the dataset."""
    expected = {folder / file.path: file for file in job.files}
    for day in {path.parent for path in expected}:
        day.mkdir(parents=True, exist_ok=True)
        if not all(_holds(path, file) for path, file in expected.items() if path.parent == day):
            (day / _MARK).unlink(missing_ok=True)
        for path in day.glob("part-*.parquet"):
            if path not in expected:
                path.unlink()


def _keep(partial_file: Path, target: Path, file: ExportedFile) -> None:
    if _digest(partial_file) != file.sha256:
        partial_file.unlink()
        raise UnexpectedAnswer(
            f"{file.path} was changed on its way: its digest differs from the export's; try again"
        )
    partial_file.replace(target)
