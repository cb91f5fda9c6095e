"""Training runs and other jobs: requested, then followed to their end."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from vigia_ml.client.core import Core, Time, at, encoded, encoded_rows, time_text
from vigia_ml.client.errors import NotFinished, RunFailed
from vigia_ml.client.flow import Flow, Sleep, Work
from vigia_ml.client.frames import Row, as_path, is_frame, rows_of
from vigia_ml.client.predicting import schema_in_force
from vigia_ml.client.progress import Progress, Report, reporting
from vigia_ml.client.results import Comparison, Evaluation, Job, Replay, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    Rows = pd.DataFrame | Sequence[Row] | str | Path

J = TypeVar("J", bound=Job)
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
UPLOAD_SECONDS = 300.0
"""Time limit of an answer to an upload, whose rows the service reads first."""


def train(
    core: Core,
    model: str,
    rows: Rows | None = None,
    *,
    mode: Literal["append", "replace"] | None = None,
    since: Time | None = None,
    until: Time | None = None,
    outcomes: bool = False,
    search: int | None = None,
    repeat: bool = False,
    wait: bool = True,
    progress: Progress = False,
    idempotency_key: str | None = None,
) -> Flow[Run]:
    """Trains a new version and returns its run.

    Parameters
    ----------
    rows : labelled rows: a frame, a list of dicts, or the path of a CSV file, which is streamed. None: with
        `outcomes`, logged predictions whose outcome is known; with `search`, the rows of the active version;
        for a recommender, its catalogue.
    mode : ``append`` adds the rows to those of the active version, ``replace`` trains on them alone.
    since, until : time range of the predictions, with `outcomes`.
    search : number of combinations of hyper-parameters to try.
    repeat : append also rows that the active version's dataset already holds.
    wait : whether to wait for the end of the run. progress : shows stage and percentage.

    Raises
    ------
    RunFailed : the run failed or was cancelled; `error.run` is its last state. A version that did not pass
        its gate is no failure: see `Run.passed_gate`.
    """
    fields: dict[str, Any] = {"mode": mode} if mode else {}
    if repeat:
        fields["repeat"] = True
    path, params = as_path(rows), None
    body: bytes | Path
    if path is not None:
        if search is not None:
            raise ValueError(
                "a search needs rows as a frame or a list, or none; a CSV file has no field for it"
            )
        body, params = path, {name: str(value).lower() for name, value in fields.items()}
    else:
        if search is not None:
            fields["search"] = {"n_iter": search}
        if outcomes or since is not None or until is not None:
            limits = {"since": time_text(since), "until": time_text(until)}
            fields |= {"from": "outcomes"} | {name: text for name, text in limits.items() if text}
        elif rows is not None:
            fields["instances"] = yield from _labelled(core, model, rows, None)
        body = encoded(fields)
    run = yield from core.post(
        at("models", model, "training-runs"), Run, body, params,
        timeout=UPLOAD_SECONDS, idempotency_key=idempotency_key,
    )  # fmt: skip
    if not wait:
        return run
    return (yield from follow(core, run, progress=progress))


def follow(core: Core, run: Run, *, progress: Progress = False) -> Flow[Run]:
    """Waits for the end of a training run and returns its last state.

    Raises
    ------
    RunFailed : the run failed or was cancelled.
    """
    path = at("models", run.model, "training-runs", run.id)
    return (yield from followed(core, run, path, f"run {run.id} of {run.model}", progress))


def followed(
    core: Core, job: J, path: str, name: str, progress: Progress, timeout: float | None = None
) -> Flow[J]:
    """Asks for a job until it has ended, for at most `timeout` seconds."""
    until = math.inf if timeout is None else time.monotonic() + timeout
    with reporting(progress, name) as report:
        job = yield from _until_finished(core, job, path, report, until)
    if not job.is_finished:
        raise NotFinished(f"{name} did not end within {timeout:g} s: {job.stage or job.status}", job)
    if job.status != "succeeded":
        reason = f": {job.error}" if job.error else ""
        raise RunFailed(f"{name} {'was cancelled' if job.status == 'cancelled' else 'failed'}{reason}", job)
    return job


def _until_finished(core: Core, job: J, path: str, report: Report, until: float) -> Flow[J]:
    pause, shown = FIRST_PAUSE, 0
    while not job.is_finished:
        left = until - time.monotonic()
        if left <= 0:
            return job
        report(max(0, job.percent - shown), 100)
        shown = max(shown, job.percent)
        yield Sleep(min(pause, left))
        pause = min(pause * 1.3, LONGEST_PAUSE)
        job = yield from core.get(path, type(job))
    report(100 - shown, 100)
    return job


def cancel(core: Core, model: str, run: int) -> Flow[Run]:
    """Cancels a training run: at once while it waits, else between two stages."""
    return (yield from core.post(at("models", model, "training-runs", run, "cancel"), Run, b""))


def run(core: Core, model: str, id: int) -> Flow[Run]:
    """Returns one training run."""
    return (yield from core.get(at("models", model, "training-runs", id), Run))


def runs(core: Core, model: str, *, before: int | None = None) -> Flow[list[Run]]:
    """Returns the newest training runs (at most a page of them; `before`: with a smaller id)."""
    return (yield from core.get(at("models", model, "training-runs"), list[Run], {"before": before}))


def evaluate(core: Core, model: str, rows: Rows, *, version: int | None = None) -> Flow[Evaluation]:
    """Computes metrics of the active version, or of another one, on labelled rows. Trains and logs nothing.

    Parameters
    ----------
    rows : a frame, a list of dicts, or the path of a CSV file.
    """
    path = as_path(rows)
    body: bytes | Path
    if path is None:
        labelled = yield from _labelled(core, model, rows, version)
        body = encoded({"instances": labelled})
    else:
        body = path
    return (
        yield from core.post(
            at("models", model, "evaluations"), Evaluation, body, {"version": version}, timeout=UPLOAD_SECONDS
        )
    )


def _labelled(core: Core, model: str, rows: Any, version: int | None) -> Flow[list[Mapping[str, Any]]]:
    if is_frame(rows):
        schema = yield from schema_in_force(core, model, version)
        converted: list[Mapping[str, Any]] = yield Work(partial(rows_of, rows, schema, with_target=True))
        return converted
    plain = list(rows)
    encoded_rows(plain)  # refuses infinite numbers
    return plain


def compare(
    core: Core, model: str, before: int, after: int, *, wait: bool = True, progress: Progress = False
) -> Flow[Comparison]:
    """Compares two versions on the later one's hold-out.

    Raises
    ------
    RunFailed : the comparison failed.
    """
    path = at("models", model, "versions", after, "comparisons")
    job = yield from core.post(path, Comparison, encoded({"with": before}))
    if not wait:
        return job
    name = f"comparison of versions {before} and {after} of {model}"
    return (yield from followed(core, job, f"{path}{job.id}/", name, progress))


def replay(
    core: Core,
    model: str,
    version: int,
    *,
    since: Time | None = None,
    until: Time | None = None,
    wait: bool = True,
    progress: Progress = False,
) -> Flow[Replay]:
    """Answers a window of the log again with one version (default: the last week) and compares the answers.

    Raises
    ------
    RunFailed : the replay failed or was cancelled.
    """
    window = {"since": time_text(since), "until": time_text(until)}
    path = at("models", model, "versions", version, "replays")
    body = encoded({name: text for name, text in window.items() if text})
    job = yield from core.post(path, Replay, body)
    if not wait:
        return job
    name = f"replay {job.id} of version {version} of {model}"
    return (yield from followed(core, job, f"{path}{job.id}/", name, progress))
