"""Exports the log as Parquet: ``manage.py export_log [YYYY-MM …] --out DIR``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from predictions.exports.window import Window, complete_window
from predictions.log.partitions import Month
from predictions.management.moments import moment_option
from training.models import RegisteredModel
from training.registry import lookup
from vigia_ml.errors import VigiaError


class Command(BaseCommand):
    help = (
        "Writes predictions with their outcomes as Parquet files, partitioned by model and day. A day that "
        "has not changed since its last export is left as it is."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "months", nargs="*", metavar="YYYY-MM", help="months to export, instead of --since and --until"
        )
        parser.add_argument(
            "--since", type=moment_option, metavar="TIME", help="first time (default: beginning of the log)"
        )
        parser.add_argument(
            "--until",
            type=moment_option,
            metavar="TIME",
            help="end, exclusive (default and latest: the time up to which the log is complete)",
        )
        parser.add_argument(
            "--model", action="append", metavar="NAME", help="a model; may be repeated (default: all models)"
        )
        parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the dataset")

    def handle(self, *args: Any, **options: Any) -> None:
        from predictions.exports import folders  # imports pyarrow

        if options["months"] and (options["since"] or options["until"]):
            raise CommandError("give months, or --since and --until, not both")
        rows = written = 0
        try:
            names = options["model"]
            models = [lookup.get_model(name) for name in names] if names else RegisteredModel.objects.all()
            for window in _windows(options):
                for model in models:
                    for folder, manifest, is_new in folders.export(model, window, options["out"]):
                        files = len(manifest["files"])
                        state = f"{files} file{'s' * (files != 1)}" if is_new else "unchanged"
                        self.stdout.write(f"{folder}: {manifest['rows']:,} rows, {state}")
                        rows, written = rows + manifest["rows"], written + is_new
        except VigiaError as error:
            raise CommandError(error.message) from None
        except OSError as error:
            raise CommandError(
                f"cannot write {error.filename or options['out']}: {error.strerror}"
            ) from error
        self.stdout.write(f"{rows:,} rows; {written} days written")


def _windows(options: dict[str, Any]) -> Iterator[Window]:
    if not options["months"]:
        yield _checked(complete_window(options["since"], options["until"]))
    for text in options["months"]:
        try:
            month = Month.of(dt.datetime.strptime(text, "%Y-%m"))
        except ValueError:
            raise CommandError(f"{text} is not a month; write it as 2026-11") from None
        yield _checked(complete_window(month.start, month.next.start))


def _checked(window: Window) -> Window:
    if window.since >= window.until:
        raise CommandError(
            f"the window from {window.since:%F %T} to {window.until:%F %T} UTC is empty: since must be "
            "before until, and before the time up to which the log is complete, some seconds ago"
        )
    return window
