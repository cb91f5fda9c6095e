"""Commands about batches: batch, batches."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vigia_ml.cli.answering import PATIENT_RETRIES, ModelName, VersionOption
from vigia_ml.cli.output import say, show_fields, show_table
from vigia_ml.cli.session import ExitCode, Session, command
from vigia_ml.client import Batch, Client, RunFailed


class RowsFormat(StrEnum):
    CSV = "csv"
    PARQUET = "parquet"
    JSONL = "jsonl"


class OnInvalid(StrEnum):
    REPORT = "report"
    STOP = "stop"


Out = Annotated[
    str | None, typer.Option("-o", "--out", "--output", help="File for the results: .csv or .parquet.")
]
Errors = Annotated[str | None, typer.Option("--errors", help="CSV file for the faults of invalid rows.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for function in (batch, batches):
        command(app)(function)


def batch(
    session: Session,
    model: ModelName,
    file: Annotated[
        str, typer.Argument(help="A .csv, .parquet or .jsonl file, also packed (.csv.gz); -: standard input.")
    ],
    out: Out = None,
    errors: Errors = None,
    format: Annotated[
        RowsFormat | None, typer.Option("--format", help="Format of the rows; default: by the file's name.")
    ] = None,
    version: VersionOption = None,
    on_invalid: Annotated[
        OnInvalid,
        typer.Option(help="report: collect the faults of invalid rows; stop: end at the first one."),
    ] = OnInvalid.REPORT,
    location: Annotated[
        str | None, typer.Option(help="Folder that the service declares; FILE is then a path below it.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the end of the batch.")] = True,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="Any text: for a day, the same command with the same text gets the same batch."),
    ] = None,
) -> None:
    """Score a file of any size as a job of the service, and write the results.

    Invalid rows do not stop the batch; the exit code is then 6.
    """
    if not wait and (out or errors):
        raise typer.BadParameter("--out and --errors wait for the end of the batch: leave out --no-wait")
    if out is not None and Path(out).suffix.lower() not in (".csv", ".parquet", ".pq"):
        raise typer.BadParameter("--out must end in .csv or .parquet")
    options: dict[str, Any] = {
        "version": version, "on_invalid": on_invalid.value, "idempotency_key": idempotency_key,
        "format": None if format is None else format.value,
    }  # fmt: skip
    with session.client(retries=PATIENT_RETRIES) as client:
        queued = _requested(client, model, file, location, options)
        if not wait:
            _show(session, queued)
            return
        say(
            session,
            f"Batch {queued.id} is {queued.status}. Ctrl-C ends the waiting, not the batch.",
        )
        try:
            done = queued.wait(progress=session.progress)
        except RunFailed as failure:
            if errors is not None and failure.job.invalid:
                failure.job.errors(errors)
            raise
        _download(session, done, out, errors)
        _show(session, done)
    if done.invalid:
        raise typer.Exit(ExitCode.INVALID_ROWS)


def _requested(client: Client, model: str, file: str, location: str | None, options: dict[str, Any]) -> Batch:
    if location is not None:
        return client.batch(model, location=location, path=file, **options)
    if file != "-":
        return client.batch(model, file, **options)
    return client.batch(model, sys.stdin.buffer, **{**options, "format": options["format"] or "csv"})


def batches(
    session: Session,
    model: ModelName,
    number: Annotated[int | None, typer.Argument(metavar="[BATCH]", help="One batch, in full.")] = None,
    out: Out = None,
    errors: Errors = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the batch.")] = False,
) -> None:
    """List the batches of a model, newest first; show, download or cancel one."""
    if number is None and (out or errors or cancel):
        raise typer.BadParameter("name a batch: vigiactl batches MODEL BATCH")
    with session.client() as client:
        if number is not None:
            found = client.get_batch(model, number)
            found = found.cancel() if cancel else found
            _download(session, found, out, errors)
            _show(session, found)
            return
        listed = client.batches(model)
    columns = {
        "BATCH": lambda row: row.id,
        "STATUS": lambda row: row.status,
        "VERSION": lambda row: row.version,
        "ROWS": lambda row: row.rows,
        "SCORED": lambda row: row.scored,
        "INVALID": lambda row: row.invalid,
        "PERCENT": lambda row: row.percent,
        "BY": lambda row: row.requested_by,
        "QUEUED": lambda row: row.queued_at,
        "ERROR": lambda row: row.error or None,
    }
    show_table(session, listed, columns)


def _download(session: Session, found: Batch, out: str | None, errors: str | None) -> None:
    if out is not None:
        say(session, f"{found.scored:,} rows written to {found.results(out)}.")
    if errors is not None:
        say(session, f"{found.invalid:,} invalid rows: faults written to {found.errors(errors)}.")


def _show(session: Session, found: Batch) -> None:
    first = [f"row {each.get('row')}: {each.get('message')}" for each in found.first_errors[:3]]
    fields = {
        "batch": found.id, "status": found.status, "version": found.version,
        "file": f"{found.location}: {found.path}" if found.location else None,
        "rows": found.rows, "scored": found.scored, "invalid": found.invalid or None,
        "rows per second": found.rows_per_second, "error": found.error, "first faults": first,
        "results until": found.results_until,
    }  # fmt: skip
    show_fields(session, found, fields)
