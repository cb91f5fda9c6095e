"""What the commands that load a file share: finding it, how it is read, and what became of its rows."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Generic, TextIO, TypeVar, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from recommender.files import Layout, Rows, open_rows
from training.management import csv_files
from vigia_ml.errors import VigiaError
from vigia_ml.schema import InvalidRows

T = TypeVar("T")


class LoadingCommand(BaseCommand, Generic[T]):
    """Loads one file, whole or not at all."""

    layout: Layout[T]

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="CSV or JSON lines, also .gz, also by its name in VIGIA_DATA_DIR")
        parser.add_argument(
            "--refused",
            metavar="FILE",
            help="set bad rows aside in this CSV, with their reasons, and load the others",
        )
        csv_files.add_dialect_arguments(parser)

    def load(self, rows: Rows[T], refused: TextIO | None, options: dict[str, Any]) -> str:
        """Loads the file, and says what became of its rows."""
        raise NotImplementedError

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            path = csv_files.find(options["file"])
            with csv_files.open_rows(path) as stream, _set_aside(options["refused"], self.say) as refused:
                rows = open_rows(cast("BinaryIO", stream), self.layout, csv_files.told(options))
                self.say(f"{path}: {rows.described}")
                done = self.load(rows, refused, options)
        except InvalidRows as error:
            for fault in error.faults:
                self.stderr.write(fault.described)
            if error.truncated:
                self.stderr.write(f"… and more; these are the first {len(error.faults)}")
            raise CommandError(f"{path.name}: {error.message}; nothing was loaded") from error
        except (ValueError, OSError, EOFError, zlib.error, VigiaError) as error:
            raise CommandError(f"{error}; nothing was loaded") from error
        except MemoryError as error:
            raise CommandError("there is not enough memory; nothing was loaded") from error
        except Error as error:
            raise CommandError(f"the database ended it: {error}; nothing was loaded") from error
        if rows.passed_over:
            self.say(f"not read, because nothing here is called so: {', '.join(rows.passed_over)}")
        self.say(done)

    def say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()

    def progress(self) -> Callable[[int], None]:
        return csv_files.progress(self.say, "read")


@contextmanager
def _set_aside(given: str | None, say: Callable[[str], None]) -> Iterator[TextIO | None]:
    """A file that takes its name when it holds rows, and when all else has gone well or not at all."""
    if given is None:
        yield None
        return
    path = Path(given).expanduser()
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=path.parent, prefix=".refused-", delete=False
    ) as stream:
        written = Path(stream.name)
        try:
            yield cast("TextIO", stream)
        finally:
            stream.flush()
            if written.stat().st_size:
                written.replace(path)
                say(f"bad rows are set aside in {path}")
            else:
                written.unlink()
