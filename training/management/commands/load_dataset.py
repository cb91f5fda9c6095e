"""Loads a CSV as training rows: ``manage.py load_dataset MODEL FILE [--train [--activate]]``."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO, cast

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from training import catalogue
from training.management import csv_files
from training.management.run_progress import execute_and_present
from training.models import Dataset, RegisteredModel, TrainingRun
from training.registry import lookup
from training.runs import requests as run_requests
from training.runs import uploads
from vigia_ml.errors import VigiaError
from vigia_ml.schema import InvalidRows
from vigia_ml.schema.csv_dialect import Told
from vigia_ml.schema.csv_reader import CsvReader


class Command(BaseCommand):
    help = (
        "Loads a CSV as a dataset of a registered model; with --train, also trains a version in this process."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", help="name of a registered model")
        parser.add_argument("file", help="CSV or CSV.GZ: a path, or a name in VIGIA_DATA_DIR")
        parser.add_argument("--train", action="store_true", help="train a version on the dataset")
        parser.add_argument(
            "--activate",
            action="store_true",
            help="activate the version if it passes its gate, whatever the policy",
        )
        parser.add_argument(
            "--reason", default="", metavar="TEXT", help="reason of the activation, for the audit table"
        )
        parser.add_argument(
            "--mode",
            choices=TrainingRun.Mode.values,
            default=TrainingRun.Mode.REPLACE.value,
            help="rows of the training: only the CSV's (replace), or the active version's too (append)",
        )
        parser.add_argument(
            "--repeat",
            action="store_true",
            help="with --mode append: also append rows that the active version's dataset already holds",
        )
        parser.add_argument(
            "--skip-bad", action="store_true", help="write bad rows to FILE.refused.csv and load the others"
        )
        parser.add_argument("--skip-unlabelled", action="store_true", help="leave out rows without a target")
        csv_files.add_dialect_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["activate"] and not options["train"]:
            raise CommandError("--activate needs --train: this command activates only new versions")
        if options["reason"] and not options["activate"]:
            raise CommandError("--reason needs --activate")
        model = self._model(options["model"])
        try:
            path = csv_files.find(options["file"])
            loading = _Loading(model, path, csv_files.told(options), options["skip_unlabelled"])
            dataset = self._load(loading, skip_bad=options["skip_bad"])
        except InvalidRows as error:
            self._print_faults(error)
            raise CommandError(f"{path.name}: {error.message}; nothing was loaded") from error
        except (ValueError, OSError, EOFError, VigiaError) as error:
            raise CommandError(str(error)) from error
        if options["train"]:
            reason = options["reason"] or f"loaded from {path.name} with --activate"
            activation_reason = reason if options["activate"] else ""
            self._train(dataset, options["mode"], activation_reason, repeat=options["repeat"])

    def _say(self, text: str = "") -> None:
        self.stdout.write(text)
        self.stdout.flush()

    @staticmethod
    def _model(name: str) -> RegisteredModel:
        lookup.sync_catalogue()
        if name not in catalogue.names():
            raise CommandError(f"unknown model {name[:60]!r}; models: {', '.join(catalogue.names())}")
        return lookup.get_model(name)

    # -- loading -----------------------------------------------------------------------------------

    def _load(self, loading: _Loading, *, skip_bad: bool) -> Dataset:
        self._say(f"{loading.path}: read with {loading.described}")
        if not skip_bad:
            dataset = self._read(loading, None)
        else:
            with _set_aside(loading.path) as refused:
                try:
                    dataset = self._read(loading, refused.stream)
                finally:
                    bad = refused.keep()
                    self._say(f"{bad:,} bad rows set aside in {refused.path}" if bad else "no bad rows")
        self._say(f"dataset {dataset.sha256[:12]}: {dataset.rows:,} rows of {dataset.registered_model.name}")
        return dataset

    def _read(self, loading: _Loading, refused: TextIO | None) -> Dataset:
        with csv_files.open_rows(loading.path) as stream:
            return uploads.from_csv(
                loading.model,
                stream,  # type: ignore[arg-type]
                by=None,
                source=loading.path.name,
                dialect=loading.dialect,
                skip_unlabelled=loading.skip_unlabelled,
                refused=refused,
                progress=csv_files.progress(self._say, "read"),
                notify=self._say,
            )

    def _print_faults(self, error: InvalidRows) -> None:
        for fault in error.faults:
            self.stderr.write(fault.described)
        if error.truncated:
            self.stderr.write(f"… only the first {len(error.faults)} faults are shown")

    # -- training ----------------------------------------------------------------------------------

    def _train(self, dataset: Dataset, mode: str, activation_reason: str, *, repeat: bool) -> None:
        run = run_requests.request(
            dataset.registered_model,
            dataset,
            mode=mode,
            by=None,
            activation_reason=activation_reason,
            repeat=repeat,
        )
        execute_and_present(run, self._say)


class _Loading:
    """A file to load into a dataset of a model."""

    def __init__(self, model: RegisteredModel, path: Path, dialect: Told, skip_unlabelled: bool) -> None:
        self.model, self.path, self.dialect, self.skip_unlabelled = model, path, dialect, skip_unlabelled

    @cached_property
    def described(self) -> str:
        """The file's dialect as text; raises `InvalidRows` for a header that does not match."""
        with csv_files.open_rows(self.path) as stream:
            reader = CsvReader(
                stream,  # type: ignore[arg-type]
                uploads.declared_schema(self.model),
                with_target=True,
                told=self.dialect,
            )
            return reader.dialect.described


class _Refused:
    """The file of bad rows: a temporary file that is renamed only when it holds rows."""

    def __init__(self, stream: TextIO, path: Path) -> None:
        self.stream, self.path = stream, path

    def keep(self) -> int:
        """Renames the file if it holds rows; returns how many."""
        self.stream.flush()
        temporary = Path(self.stream.name)
        with temporary.open(encoding="utf-8", newline="") as stream:
            rows = max(0, sum(1 for _ in csv.reader(stream)) - 1)
        if rows:
            temporary.replace(self.path)
        return rows


@contextmanager
def _set_aside(path: Path) -> Iterator[_Refused]:
    """Opens ``FILE.refused.csv`` beside the file, or in VIGIA_VAR if that directory is not writable."""
    name = f"{csv_files.stem(path)}.refused.csv"
    try:
        stream = _temporary(path.parent)
    except OSError:
        settings.VAR_DIR.mkdir(parents=True, exist_ok=True)
        stream = _temporary(settings.VAR_DIR)
    try:
        with stream:
            yield _Refused(stream, Path(stream.name).parent / name)
    finally:
        Path(stream.name).unlink(missing_ok=True)


def _temporary(directory: Path) -> TextIO:
    file = tempfile.NamedTemporaryFile(  # noqa: SIM115
        "w", encoding="utf-8", newline="", dir=directory, prefix=".refused-", delete=False
    )
    return cast("TextIO", file)
