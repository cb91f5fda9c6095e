"""Commands about answers: predict, log, export-log, outcomes, quality, drift, recommend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vigia_ml.cli import rows
from vigia_ml.cli.files import (
    Format,
    Writer,
    format_of,
    moment,
    on_disk,
    opened,
    read_frame,
    read_json,
    writing,
)
from vigia_ml.cli.output import FIRST, cell, main_metrics, say, show_fields, show_json, show_table
from vigia_ml.cli.session import ExitCode, Session, command
from vigia_ml.client import Client, predicting
from vigia_ml.client.frames import flat, schema_of
from vigia_ml.client.progress import reporting

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.")]
Since = Annotated[
    str | None, typer.Option(help="Begin: 30m, 12h, 7d or 2w before now, or a time (ISO 8601, UTC).")
]
Until = Annotated[str | None, typer.Option(help="End, exclusive; default: now.")]
VersionOption = Annotated[int | None, typer.Option("--version", help="Number of the version.")]
Input = Annotated[Format | None, typer.Option("--format", help="Format of the input; default: by its name.")]
Output = Annotated[str, typer.Option("-o", "--output", help="File to write, or - for standard output.")]
OutputFormat = Annotated[
    Format | None, typer.Option("--output-format", help="Format of the output; default: by its name.")
]
PATIENT_RETRIES = 8
"""Repetitions of a batch, some 50 seconds in all: a restart of the service does not end the command."""


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for function in (predict, log, outcomes, quality, drift, recommend):
        command(app)(function)
    command(app, "export-log")(export_log)


def predict(
    session: Session,
    model: ModelName,
    file: Annotated[str, typer.Argument(help="csv, json, jsonl or parquet; - is standard input.")],
    output: Output = "-",
    format: Input = None,
    output_format: OutputFormat = None,
    version: VersionOption = None,
    key_column: Annotated[
        str | None, typer.Option(help="Column with your own reference of each row.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of one request.")] = predicting.BATCH_SIZE,
    concurrency: Annotated[
        int, typer.Option(min=1, max=64, help="Requests at the same time.")
    ] = predicting.CONCURRENCY,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first invalid rows instead of writing their faults.")
    ] = False,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="Any text: the same command with it, within a day, gets the stored answers."),
    ] = None,
) -> None:
    """Predict the rows of a file, and write them with their answers.

    A row that the model does not accept gets its fault in the column "error"; the exit code is then 6.
    """
    kind = format_of(file, format)
    out_kind = Format.JSONL if session.as_json and output == "-" else format_of(output, output_format)
    invalid = 0
    options: dict[str, Any] = {"version": version, "batch_size": batch_size, "concurrency": concurrency}
    with session.client(retries=PATIENT_RETRIES) as client, writing(output, out_kind) as writer:
        described = client.model(model)
        plain = described.schema if version is None else client.version(model, version).schema
        size = batch_size * concurrency * 2
        with reporting(session.progress and output != "-", f"predictions of {model}") as report:
            source = rows.pieces(file, kind, schema_of(plain, model), key_column, size)
            for number, lines in enumerate(source):
                sent = [line.sent for line in lines if line.sent is not None]
                if strict and len(sent) < len(lines):
                    first = next(line for line in lines if line.sent is None)
                    say(session, f"vigiactl: invalid rows: {first.error}")
                    raise typer.Exit(ExitCode.REFUSED)
                if idempotency_key:
                    options["idempotency_key"] = f"{idempotency_key}-{number}"
                answers, errors = _answered(client, model, sent, options, strict=strict)
                classifies = described.task != "regression"
                writer.write(rows.written(lines, answers, errors, classifies=classifies))
                invalid += sum(bool(line.error) for line in lines)
                report(len(lines), writer.rows)
    _tell_end(session, writer, invalid)


def _answered(
    client: Client,
    model: str,
    sent: list[dict[str, Any]],
    options: Any,
    *,
    strict: bool,
) -> Any:
    if strict:
        return client.predict(model, sent, **options), []
    return client.predict(model, sent, errors="frame", **options)


def _tell_end(session: Session, writer: Writer, invalid: int) -> None:
    where = "" if writer.path == "-" else f" in {writer.path}"
    if invalid:
        say(session, f"{writer.rows - invalid} of {writer.rows} rows answered{where}; {invalid} invalid.")
        raise typer.Exit(ExitCode.INVALID_ROWS)
    say(session, f"{writer.rows} rows answered{where}.")


def log(
    session: Session,
    model: ModelName,
    since: Since = None,
    until: Until = None,
    version: VersionOption = None,
    row_key: Annotated[str | None, typer.Option("--row-key", help="Your own reference of the rows.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of rows; default: 20 in a table, all in a file.")
    ] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="File to write, or -.")] = None,
    output_format: OutputFormat = None,
) -> None:
    """Show the log, or write it to a file; newest first."""
    most = limit or (20 if output is None else None)
    with session.client(retries=PATIENT_RETRIES) as client:
        page = min(most or 1_000, 1_000)
        window = {"since": moment(since), "until": moment(until)}
        source = client.log(model, **window, version=version, key=row_key, page_size=page)
        if output is None:
            found = [row for _, row in zip(range(most or 0), source, strict=False)]
            columns = {
                "AT": lambda row: row.at,
                "VERSION": lambda row: row.version,
                "KEY": lambda row: row.key,
                "PREDICTION": lambda row: row.prediction,
                "PROBABILITY": lambda row: row.probability,
                "WARNINGS": lambda row: [f"{each.field}: {each.code}" for each in row.warnings],
                "ID": lambda row: row.id,
            }
            show_table(session, found, columns)
            return
        kind = format_of(output, output_format)
        with writing(output, kind) as writer, reporting(session.progress, f"log of {model}") as report:
            for each in source.pages():
                room = len(each.predictions) if most is None else most - writer.rows
                chosen = each.predictions[:room]
                nested = kind in (Format.JSON, Format.JSONL)
                writer.write([row.to_dict() if nested else flat(row) for row in chosen])
                report(len(chosen), writer.rows)
                if most is not None and writer.rows >= most:
                    break
    say(session, f"{writer.rows} rows written{'' if output == '-' else f' to {output}'}.")


def export_log(
    session: Session,
    model: ModelName,
    since: Annotated[str, typer.Option(help="Begin: 12h, 7d or 2w before now, or a time (ISO 8601, UTC).")],
    out: Annotated[Path, typer.Option("-o", "--out", "--output", help="Folder of the dataset.")],
    until: Annotated[
        str | None, typer.Option(help="End, exclusive; default and latest: the end of the complete log.")
    ] = None,
) -> None:
    """Export the log with its outcomes as Parquet files, one folder a day, for DuckDB, pandas or Spark."""
    with session.client(retries=PATIENT_RETRIES) as client:
        begin = moment(since) or since
        done = client.export_log(model, out, since=begin, until=moment(until), progress=session.progress)
    fields = {
        "export": done.id, "status": done.status, "since": done.since, "until": done.until,
        "rows": done.rows, "files": sum(file.rows is not None for file in done.files), "bytes": done.bytes,
    }  # fmt: skip
    show_fields(session, done, fields)


def outcomes(
    session: Session,
    model: ModelName,
    file: Annotated[str, typer.Argument(help="Columns actual, prediction or key, observed_at; - is stdin.")],
    format: Input = None,
) -> None:
    """Record outcomes: the actual values of predictions, by their id or your own key."""
    kind = format_of(file, format)
    with session.client(retries=PATIENT_RETRIES) as client:
        if kind is Format.PARQUET:
            recorded = client.outcomes(model, read_frame(file, kind))
        elif kind is Format.CSV:
            with on_disk(file) as path:
                recorded = client.outcomes(model, path)
        else:
            with opened(file) as stream:
                recorded = client.outcomes(model, list(read_json(stream, kind)))
    names = ("received", "recorded", "corrected", "repeated", "waiting", "ambiguous")
    show_fields(session, recorded, {name: getattr(recorded, name) for name in names})


def quality(
    session: Session,
    model: ModelName,
    since: Since = None,
    until: Until = None,
    version: VersionOption = None,
) -> None:
    """Show the realised quality of each version, beside its quality on the hold-out."""
    with session.client() as client:
        found = client.quality(model, since=moment(since), until=moment(until), version=version)
    if session.as_json:
        show_json(found)
        return
    columns = {
        "VERSION": lambda each: each.version,
        "ANSWERED": lambda each: each.answered,
        "LABELLED": lambda each: each.labelled,
        "REALISED": lambda each: "too few outcomes" if each.too_few else _estimates(each.metrics),
        "HOLD-OUT": lambda each: main_metrics(each.holdout),
    }
    show_table(session, found.versions, columns)


def _estimates(metrics: dict[str, dict[str, Any]]) -> str:
    parts = []
    for name in [each for each in FIRST if each in metrics][:3] or list(metrics)[:3]:
        each = metrics[name]
        low, high = each.get("low"), each.get("high")
        interval = f" ({cell(low)} to {cell(high)})" if low is not None and high is not None else ""
        parts.append(f"{name} {cell(each.get('value'))}{interval}")
    return ", ".join(parts)


def drift(
    session: Session,
    model: ModelName,
    since: Since = None,
    until: Until = None,
    version: VersionOption = None,
) -> None:
    """Show the latest drift review, or review a window now."""
    with session.client() as client:
        review = client.drift(model, since=moment(since), until=moment(until), version=version)
    if session.as_json:
        show_json(review)
        return
    window = f"{cell(review.since)} to {cell(review.until)}"
    fields = {"version": review.version, "window": window, "rows": review.rows, "verdict": review.verdict}
    show_fields(session, review, fields | {"reason": review.reason, "drifting": review.drifting})
    columns = {
        "COLUMN": lambda finding: finding.get("column"),
        "VERDICT": lambda finding: finding.get("verdict"),
        "PSI": lambda finding: finding.get("adjusted_psi"),
        "P-VALUE": lambda finding: finding.get("adjusted_p_value"),
        "MISSING": lambda finding: finding.get("missing"),
        "UNSEEN": lambda finding: finding.get("unseen"),
        "ROWS": lambda finding: finding.get("rows"),
    }
    drifted_first = sorted(review.findings, key=lambda finding: finding.get("verdict") != "drift")
    show_table(session, drifted_first, columns)


def recommend(
    session: Session,
    title: Annotated[str | None, typer.Argument(help="Title of a movie.")] = None,
    movie_id: Annotated[int | None, typer.Option(help="Id of a movie.")] = None,
    text: Annotated[str | None, typer.Option(help="Free text.")] = None,
    user: Annotated[str | None, typer.Option(help="Your own reference of a person.")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Number of movies.")] = None,
) -> None:
    """Recommend movies similar to a movie or a text, or by a person's interactions."""
    with session.client() as client:
        found = client.recommend(title=title, movie_id=movie_id, text=text, user=user, top_n=top)
    if session.as_json:
        show_json(found)
        return
    columns = {
        "TITLE": lambda movie: movie.title,
        "YEAR": lambda movie: movie.year,
        "SCORE": lambda movie: movie.score,
        "GENRES": lambda movie: movie.genres,
        "BECAUSE": lambda movie: [each.get("term") for each in movie.because[:3]],
    }
    show_table(session, found.recommendations, columns)
    if not found.recommendations:
        say(session, f"No movie: {found.reason}.")
