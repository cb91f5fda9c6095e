"""The base of the commands that load a file: finds the file, reads it, and reports the result."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Generic, TextIO, TypeVar, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from recommender.files.tabular import FileRows, Layout, open_rows
from training.management import csv_files
from vigia_ml.errors import VigiaError
from vigia_ml.schema import InvalidRows

T = TypeVar("T")


class LoadingCommand(BaseCommand, Generic[T]):
    """A command that loads one file, whole or not at all."""

    layout: Layout[T]

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "file", help="CSV or JSON lines, plain or .gz; a path, or a name in VIGIA_DATA_DIR"
        )
        parser.add_argument(
            "--refused",
            metavar="FILE",
            help="write bad rows with their reasons to this CSV, and load the others",
        )
        csv_files.add_dialect_arguments(parser)

    def load(self, rows: FileRows[T], refused: TextIO | None, options: dict[str, Any]) -> str:
        """Loads the rows and returns a summary."""
        raise NotImplementedError

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            path = csv_files.find(options["file"])
            with csv_files.open_rows(path) as stream, self.refused_file(options["refused"]) as refused:
                rows = open_rows(cast("BinaryIO", stream), self.layout, csv_files.told(options))
                self.say(f"{path}: {rows.described}")
                summary = self.load(rows, refused, options)
        except InvalidRows as error:
            for fault in error.faults:
                self.stderr.write(fault.described)
            if error.truncated:
                self.stderr.write(f"… and more; showing the first {len(error.faults)}")
            raise CommandError(f"{path.name}: {error.message}; nothing was loaded") from error
        except (ValueError, OSError, EOFError, zlib.error, VigiaError) as error:
            raise CommandError(f"{error}; nothing was loaded") from error
        except MemoryError as error:
            raise CommandError("not enough memory; nothing was loaded") from error
        except Error as error:
            raise CommandError(f"the database refused the load: {error}; nothing was loaded") from error
        if rows.passed_over:
            self.say(f"unknown columns were not read: {', '.join(rows.passed_over)}")
        self.say(summary)

    def say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()

    def progress(self) -> Callable[[int], None]:
        return csv_files.progress(self.say, "read")

    def refused_file(self, name: str | None) -> AbstractContextManager[TextIO | None]:
        """Opens the CSV for bad rows that ``--refused`` names."""
        if name is None:
            return nullcontext()
        path = Path(name).expanduser()
        return csv_files.refused_file(path.name, [path.parent], self.say)
