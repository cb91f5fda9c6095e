"""The command push: a pipeline in a local file is compiled here, and its graph is sent."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from vigia_ml.cli.files import format_of, read_frame
from vigia_ml.cli.output import cell, gate_words, main_metrics, say, show_fields
from vigia_ml.cli.session import ExitCode, Session, command
from vigia_ml.errors import VigiaError

SHARE_OF_TEST = 0.2
DANGER = (
    "{file} is a pickle: opening it runs the code that it holds, with your rights, on this machine. "
    "Open only files that you or people you trust have written."
)
SEEN_ROWS = (
    "no --test: the last fifth of the rows is the hold-out. If the pipeline was fitted on them, its metrics "
    "are too good."
)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app)(push)


def push(
    session: Session,
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="A fitted pipeline, written by joblib or pickle."),
    ],
    name: Annotated[str, typer.Option(help="Name of the model; one that does not exist is created.")],
    data: Annotated[str, typer.Option(help="The rows that the pipeline was fitted on: csv or parquet.")],
    target: Annotated[str, typer.Option(help="Column to predict.")],
    test: Annotated[str | None, typer.Option(help="Other rows, the hold-out: csv or parquet.")] = None,
    key_column: Annotated[str | None, typer.Option(help="Column that identifies a row.")] = None,
    title: Annotated[str, typer.Option(help="Title of a new model.")] = "",
    activate: Annotated[
        str | None, typer.Option(metavar="REASON", help="Activate the version, for this reason.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before the file is opened.")] = False,
) -> None:
    """Compile a fitted pipeline from a local file and send it as a graph; the service runs no code of it."""
    say(session, f"Warning: {DANGER.format(file=file)}")
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("pass --yes to open the file without being asked")
        typer.confirm("Open it?", abort=True, err=True)
    pipeline = _loaded(session, file)
    train, y_train = _split(data, target)
    if test is not None:
        holdout, y_test = _split(test, target)
    else:
        say(session, f"Warning: {SEEN_ROWS}")
        cut = len(train) - max(1, int(len(train) * SHARE_OF_TEST))
        holdout, y_test = train.iloc[cut:], y_train.iloc[cut:]
        train, y_train = train.iloc[:cut], y_train.iloc[:cut]
    with session.client() as client:
        version = client.push(
            pipeline, train, y_train, holdout, y_test,
            name=name, key=key_column, title=title, activate=activate, progress=session.progress,
        )  # fmt: skip
    gate = version.gate or {}
    fields = {
        "model": version.model, "version": version.number, "status": version.status,
        "metrics": main_metrics(version.metrics, 6), "baseline": main_metrics(version.baseline, 6),
        "gate": gate_words(version.gate),
        "parity": version.parity and f"worst difference {cell(version.parity.worst)}",
        "address": version.url,
    }  # fmt: skip
    show_fields(session, version, fields)
    if gate and not gate.get("passed"):
        raise typer.Exit(ExitCode.FAILED)


def _loaded(session: Session, file: Path) -> Any:
    """Returns the pipeline of a file, and prints warnings such as that of another scikit-learn."""
    try:
        import joblib

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pipeline = joblib.load(file)
    except ImportError as error:
        raise VigiaError(f"{file} needs a library: {error}", code="needs_library") from None
    except Exception as error:  # a pickle may raise anything
        message = f"{file} cannot be opened: {type(error).__name__}: {error}"
        raise VigiaError(message, code="unreadable_file") from None
    for text in dict.fromkeys(str(each.message).splitlines()[0] for each in caught if str(each.message)):
        say(session, f"Warning: {text}")
    return pipeline


def _split(path: str, target: str) -> tuple[Any, Any]:
    """Returns (rows without the target, the target)."""
    frame = read_frame(path, format_of(path, None))
    if target not in frame.columns:
        columns = ", ".join(map(str, frame.columns[:20]))
        raise VigiaError(f"{path} has no column {target!r}; it has: {columns}", code="missing_column")
    return frame.drop(columns=[target]), frame[target]
