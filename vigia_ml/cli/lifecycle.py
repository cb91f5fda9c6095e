"""Commands about versions: train, runs, versions, activate, rollback, compare."""

from __future__ import annotations

from typing import Annotated, Any, cast

import typer

from vigia_ml.cli.answering import ModelName, Since, Until
from vigia_ml.cli.files import Format, format_of, moment, on_disk, opened, read_frame, read_json
from vigia_ml.cli.output import cell, gate_words, main_metrics, say, show_fields, show_json, show_table
from vigia_ml.cli.session import ExitCode, Session, command
from vigia_ml.client import Client, Run
from vigia_ml.client.frames import schema_of
from vigia_ml.schema.csv_reader import CsvReader

Number = Annotated[int, typer.Argument(metavar="VERSION", help="Number of the version.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Reason; the audit trail keeps it.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for function in (train, runs, versions, activate, rollback, compare):
        command(app)(function)


def train(
    session: Session,
    model: ModelName,
    file: Annotated[
        str | None, typer.Argument(help="Labelled rows: csv, json, jsonl or parquet; - is standard input.")
    ] = None,
    format: Annotated[Format | None, typer.Option("--format", help="Format of the rows.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="append: to the rows of the active version; replace: these rows alone.")
    ] = None,
    search: Annotated[
        int | None, typer.Option(min=1, help="Number of combinations of hyper-parameters to try.")
    ] = None,
    outcomes: Annotated[
        bool, typer.Option("--outcomes", help="Train on logged predictions whose outcome is known.")
    ] = False,
    since: Since = None,
    until: Until = None,
    repeat: Annotated[
        bool, typer.Option("--repeat", help="Append also rows that the active version already holds.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the end of the run.")] = True,
) -> None:
    """Train a new version, and show its metrics and its gate."""
    options: dict[str, Any] = {"mode": mode, "search": search, "outcomes": outcomes, "repeat": repeat}
    options |= {"since": moment(since), "until": moment(until)}
    with session.client() as client:
        run = _requested(client, model, file, format, options)
        if wait:
            say(session, f"Run {run.id} of {model} is {run.status}. Ctrl-C ends the waiting, not the run.")
            run = client.follow(run, progress=session.progress)
    _show_run(session, run)
    if run.passed_gate is False:
        say(session, f"Version {run.version} did not pass its gate.")
        raise typer.Exit(ExitCode.FAILED)


def _requested(
    client: Client, model: str, file: str | None, format: Format | None, options: dict[str, Any]
) -> Run:
    """Requests the run: a csv is streamed as it is, unless the request also asks for a search."""
    if file is None:
        return client.train(model, **options, wait=False)
    kind = format_of(file, format)
    if kind is Format.PARQUET:
        return client.train(model, read_frame(file, kind), **options, wait=False)
    if kind is not Format.CSV:
        with opened(file) as stream:
            return client.train(model, list(read_json(stream, kind)), **options, wait=False)
    with on_disk(file) as path:
        if options["search"] is None:
            return client.train(model, path, **options, wait=False)
        schema = schema_of(client.model(model).schema, model)
        with path.open("rb") as stream:
            read = CsvReader(stream, schema, with_target=True).instances(lambda rows: None)
    target = schema.target.name
    rows = [cast("dict[str, Any]", each.values) | {target: each.target} for each in read]
    return client.train(model, rows, **options, wait=False)


def _show_run(session: Session, run: Run) -> None:
    fields = {
        "run": run.id, "status": run.status, "stage": None if run.is_finished else run.stage,
        "version": run.version, "activated": run.activated if run.version else None,
        "metrics": run.metrics, "baseline": run.baseline, "gate": gate_words(run.gate), "error": run.error,
        "notes": [note.get("message") for note in run.notes],
    }  # fmt: skip
    show_fields(session, run, fields)


def runs(
    session: Session,
    model: ModelName,
    number: Annotated[int | None, typer.Argument(metavar="[RUN]", help="One run, in full.")] = None,
) -> None:
    """List the training runs of a model, newest first, or show one."""
    with session.client() as client:
        if number is not None:
            _show_run(session, client.run(model, number))
            return
        found = client.runs(model)
    columns = {
        "RUN": lambda run: run.id,
        "STATUS": lambda run: run.status,
        "ORIGIN": lambda run: run.origin,
        "VERSION": lambda run: run.version,
        "GATE": lambda run: run.passed_gate,
        "METRICS": lambda run: main_metrics(run.metrics),
        "QUEUED": lambda run: run.queued_at,
        "ERROR": lambda run: run.error or None,
    }
    show_table(session, found, columns)


def versions(
    session: Session,
    model: ModelName,
    number: Annotated[int | None, typer.Argument(metavar="[VERSION]", help="One version, in full.")] = None,
) -> None:
    """List the versions of a model, newest first, or show one."""
    with session.client() as client:
        if number is not None:
            found = client.version(model, number)
            parity = found.parity and f"{'passed' if found.parity.passed else 'failed'}, worst difference "
            fields = {
                "version": found.number, "status": found.status, "origin": found.origin,
                "metrics": found.metrics, "baseline": found.baseline, "gate": gate_words(found.gate),
                "rows": f"{found.train_rows} for training, {found.holdout_rows} for testing",
                "engine": found.engine, "engine reason": found.engine_reason,
                "parity": found.parity and f"{parity}{cell(found.parity.worst)} on {found.parity.rows} rows",
                "created": found.created_at, "address": found.url,
            }  # fmt: skip
            show_fields(session, found, fields)
            return
        listed = client.versions(model)
    columns = {
        "VERSION": lambda version: version.number,
        "STATUS": lambda version: version.status,
        "ORIGIN": lambda version: version.origin,
        "ENGINE": lambda version: version.engine,
        "METRICS": lambda version: main_metrics(version.metrics),
        "CREATED": lambda version: version.created_at,
    }
    show_table(session, listed, columns)


def activate(
    session: Session,
    model: ModelName,
    version: Number,
    reason: Reason,
    override: Annotated[
        bool,
        typer.Option(
            "--override", help="Activate although the gate was not passed; the audit trail shows it."
        ),
    ] = False,
) -> None:
    """Make a version the active one."""
    with session.client() as client:
        row = client.activate(model, version, reason=reason, override=override)
    show_fields(session, row, {"active": row.version, "previous": row.previous, "reason": row.reason})


def rollback(session: Session, model: ModelName, reason: Reason) -> None:
    """Activate the version that was active before."""
    with session.client() as client:
        row = client.rollback(model, reason=reason)
    show_fields(session, row, {"active": row.version, "previous": row.previous, "reason": row.reason})


def compare(
    session: Session,
    model: ModelName,
    before: Annotated[int, typer.Argument(help="Number of the earlier version.")],
    after: Annotated[int, typer.Argument(help="Number of the later version.")],
) -> None:
    """Compare two versions on the later one's hold-out."""
    with session.client() as client:
        found = client.compare(model, before, after, progress=session.progress)
    if session.as_json:
        show_json(found)
        return
    result = found.result or {}
    old, new = (result.get(side, {}).get("metrics", {}) for side in ("before", "after"))
    columns = {
        "METRIC": lambda row: row[0],
        f"VERSION {before}": lambda row: old.get(row[0]),
        f"VERSION {after}": lambda row: new.get(row[0]),
        "DIFFERENCE": lambda row: row[1].get("value"),
        "INTERVAL": lambda row: " to ".join(map(cell, row[1].get("interval") or ())) or None,
    }
    show_table(session, list(result.get("differences", {}).items()), columns)
    note = result.get("holdout", {}).get("note")
    if note:
        say(session, f"Note: {note}.")
