"""Tables for a person, JSON for a program."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vigia_ml.cli.session import Session

WIDTH = 160
"""Width of tables where the output is no terminal."""
FIRST = ("roc_auc", "mae", "rmse", "r2", "log_loss", "accuracy", "f1")
Getter = Callable[[Any], object]


def console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def show_json(value: object) -> None:
    """Prints a record, or a list of records, as indented JSON."""
    encoded = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(f"{encoded.decode()}\n")


def show_table(session: Session, records: Sequence[Any], columns: Mapping[str, Getter]) -> None:
    """Prints records as a table: heading -> function that returns the cell."""
    if session.as_json:
        show_json(records)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in columns:
        table.add_column(heading, overflow="fold")
    for record in records:
        # Text, not markup: a title with [brackets] is shown as it is.
        table.add_row(*(Text(cell(get(record))) for get in columns.values()))
    console().print(table)


def show_fields(session: Session, record: Any, fields: Mapping[str, object]) -> None:
    """Prints one record as names and values; empty values are left out."""
    if session.as_json:
        show_json(record)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value not in (None, "", [], {}):
            table.add_row(name, Text(cell(value)))
    console().print(table)


def say(session: Session, text: str) -> None:
    """Tells a person on standard error."""
    if not session.as_json:
        sys.stderr.write(f"{text}\n")


def cell(value: object) -> str:
    """Returns a value as text for a person."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e6 else f"{value:,.0f}"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {cell(each)}" for name, each in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(cell(each) for each in value)
    return str(value)


def main_metrics(metrics: Mapping[str, float | None] | None, most: int = 3) -> str:
    """Returns the metrics that a person looks at first as text."""
    names = sorted(metrics or {}, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    return cell({name: (metrics or {})[name] for name in names[:most]})


def gate_words(gate: Mapping[str, Any] | None) -> str | None:
    """Returns the verdict of a gate, with the reasons of checks that failed."""
    if gate is None:
        return None
    if gate.get("passed"):
        return "passed"
    failed = [each for each in gate.get("checks", ()) if not each.get("passed")]
    return "; ".join(["not passed", *(str(each.get("message") or each.get("name")) for each in failed)])
