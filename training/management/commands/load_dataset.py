"""Loads a CSV as training rows: ``manage.py load_dataset MODEL FILE [--train [--activate]]``."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, TextIO

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from training import catalogue
from training.management import csv_files
from training.management.run_progress import (
    activation_reason,
    add_activation_arguments,
    execute_and_present,
)
from training.models import Dataset, RegisteredModel, TrainingRun
from training.registry import declarations, lookup
from training.runs import requests as run_requests
from training.runs import uploads
from vigia_ml.errors import VigiaError
from vigia_ml.schema import InvalidRows
from vigia_ml.schema.csv_reader import CsvReader


class Command(BaseCommand):
    help = (
        "Loads a CSV as a dataset of a registered model; with --train, also trains a version in this process."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", help="name of a registered model")
        parser.add_argument("file", help="CSV or CSV.GZ: a path, or a name in VIGIA_DATA_DIR")
        parser.add_argument("--train", action="store_true", help="train a version on the dataset")
        add_activation_arguments(parser)
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
        default = f"loaded from {Path(options['file']).name} with --activate"
        reason = activation_reason(options, default)
        lookup.sync_catalogue()
        model = RegisteredModel.objects.filter(name=options["model"]).first()
        if model is None or (model.declared is None and not declarations.is_trainable(model)):
            names = ", ".join(catalogue.names())
            raise CommandError(f"unknown model {options['model'][:60]!r}; models: {names}")
        try:
            declarations.require_trainable(model)
            path = csv_files.find(options["file"])
            dataset = self._load(model, path, options)
        except InvalidRows as error:
            for fault in error.faults:
                self.stderr.write(fault.described)
            if error.truncated:
                self.stderr.write(f"… only the first {len(error.faults)} faults are shown")
            raise CommandError(f"{path.name}: {error.message}; nothing was loaded") from error
        except (ValueError, OSError, EOFError, VigiaError) as error:
            raise CommandError(str(error)) from error
        self._say(f"dataset {dataset.sha256[:12]}: {dataset.rows:,} rows of {model.name}")
        if options["train"]:
            mode, repeat = options["mode"], options["repeat"]
            run = run_requests.request(
                model, dataset, mode=mode, by=None, activation_reason=reason, repeat=repeat
            )
            execute_and_present(run, self._say)

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()

    def _load(self, model: RegisteredModel, path: Path, options: dict[str, Any]) -> Dataset:
        dialect = csv_files.told(options)
        with csv_files.open_rows(path) as stream:
            schema = uploads.declared_schema(model)
            reader = CsvReader(stream, schema, with_target=True, told=dialect)  # type: ignore[arg-type]
            self._say(f"{path}: read with {reader.dialect.described}")
        with self._refused_file(path, options) as refused, csv_files.open_rows(path) as stream:
            return uploads.from_csv(
                model,
                stream,  # type: ignore[arg-type]
                by=None,
                source=path.name,
                dialect=dialect,
                skip_unlabelled=options["skip_unlabelled"],
                refused=refused,
                progress=csv_files.progress(self._say, "read"),
                notify=self._say,
            )

    def _refused_file(self, path: Path, options: dict[str, Any]) -> AbstractContextManager[TextIO | None]:
        """Opens ``FILE.refused.csv`` beside the file, or in VIGIA_VAR if that directory is not writable."""
        if not options["skip_bad"]:
            return nullcontext()
        with suppress(OSError):  # most often, the file's directory is writable
            settings.VAR_DIR.mkdir(parents=True, exist_ok=True)
        name = f"{csv_files.stem(path)}.refused.csv"
        return csv_files.refused_file(name, [path.parent, settings.VAR_DIR], self._say)
