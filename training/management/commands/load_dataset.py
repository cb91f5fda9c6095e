"""Loads a CSV as training rows: ``manage.py load_dataset MODEL FILE [--train [--activate]]``."""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO, cast

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from training import catalogue
from training.errors import VigiaError
from training.models import Dataset, ModelVersion, RegisteredModel, TrainingRun
from training.scaffold import files
from training.schema import InvalidRows
from training.schema.reading import CsvReader
from training.services import datasets, registry, runs
from training.services.beside import repeatedly

WATCH_SECONDS = 0.3
GATE_NOT_PASSED = 2  # exit code; 1 is for everything that was refused or failed


class Command(BaseCommand):
    help = (
        "Loads a CSV as a dataset of a registered model; with --train, trains a version from it right here."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", help="name of a registered model")
        parser.add_argument("file", help="CSV or CSV.GZ, also by its name in VIGIA_DATA_DIR")
        parser.add_argument("--train", action="store_true", help="train a version and wait for it")
        parser.add_argument(
            "--activate", action="store_true", help="activate it if its gate is passed, whatever the policy"
        )
        parser.add_argument("--reason", default="", metavar="TEXT", help="why, for the log of activations")
        parser.add_argument(
            "--mode",
            choices=TrainingRun.Mode.values,
            default=TrainingRun.Mode.REPLACE.value,
            help="train on these rows alone (replace), or on the active version's as well (append)",
        )
        parser.add_argument(
            "--skip-bad", action="store_true", help="set bad rows aside in FILE.refused.csv and go on"
        )
        parser.add_argument("--delimiter", metavar="D", help="one of , ; tab (recognised when not given)")
        parser.add_argument("--decimal", choices=(",", "."), help="decimal mark (recognised when not given)")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["activate"] and not options["train"]:
            raise CommandError("--activate needs --train: only a new version can be activated here")
        if options["reason"] and not options["activate"]:
            raise CommandError("--reason says why a version is activated: add --activate")
        model = self._model(options["model"])
        try:
            path = files.find(options["file"])
            delimiter = files.delimiter(options["delimiter"]) if options["delimiter"] else None
            loading = _Loading(model, path, delimiter, options["decimal"])
            dataset = self._load(loading, skip_bad=options["skip_bad"])
        except InvalidRows as error:
            self._print_faults(error)
            raise CommandError(f"{path.name}: {error.message}; nothing was loaded") from error
        except (ValueError, OSError, EOFError, VigiaError) as error:
            raise CommandError(str(error)) from error
        if options["train"]:
            reason = options["reason"] or f"loaded from {path.name} with --activate"
            self._train(dataset, options["mode"], reason if options["activate"] else "")

    def _say(self, text: str = "") -> None:
        self.stdout.write(text)
        self.stdout.flush()

    @staticmethod
    def _model(name: str) -> RegisteredModel:
        registry.sync_catalogue()
        if name not in catalogue.names():
            raise CommandError(f"no model {name[:60]!r}; there are {', '.join(catalogue.names())}")
        return registry.get_model(name)

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
                    were = f"{bad:,} bad rows set aside in {refused.path}" if bad else "no bad rows"
                    self._say(were)
        self._say(f"dataset {dataset.sha256[:12]}: {dataset.rows:,} rows of {dataset.registered_model.name}")
        return dataset

    def _read(self, loading: _Loading, refused: TextIO | None) -> Dataset:
        with files.open_rows(loading.path) as stream:
            return datasets.from_csv(
                loading.model,
                stream,  # type: ignore[arg-type]
                by=None,
                source=loading.path.name,
                delimiter=loading.delimiter,
                decimal=loading.decimal,
                refused=refused,
                progress=files.progress(self._say, "read"),
            )

    def _print_faults(self, error: InvalidRows) -> None:
        for fault in error.faults:
            self.stderr.write(fault.described)
        if error.truncated:
            self.stderr.write(f"… and more; these are the first {len(error.faults)}")

    # -- training ----------------------------------------------------------------------------------

    def _train(self, dataset: Dataset, mode: str, activation_reason: str) -> None:
        run = runs.request(
            dataset.registered_model, dataset, mode=mode, by=None, activation_reason=activation_reason
        )
        with self._watched(run.pk):
            if not runs.execute(run.pk):
                self._wait_for(run)  # a worker that looks for waiting runs was faster
        run.refresh_from_db()
        if run.status != TrainingRun.Status.SUCCEEDED:
            raise CommandError(f"run {run.pk} failed: {run.error}")
        self._present(run.version)

    @staticmethod
    def _wait_for(run: TrainingRun) -> None:
        while not run.is_finished:
            time.sleep(WATCH_SECONDS)
            run.refresh_from_db()

    def _watched(self, run_id: int) -> AbstractContextManager[None]:
        """Prints each stage of the run as the row reports it."""
        said: list[tuple[str, int]] = []

        def watch() -> None:
            now = TrainingRun.objects.filter(pk=run_id).values_list("stage", "percent").first()
            if now is not None and now not in said[-1:]:
                said.append(now)
                self._say(f"  {now[1]:3d} %  {now[0]}")

        return repeatedly(watch, every=WATCH_SECONDS, name=f"watch-{run_id}")

    def _present(self, made: ModelVersion) -> None:
        self._say(f"version {made.number} of {made.registered_model.name}")
        for line in metrics_table(made):
            self._say(f"  {line}")
        for check in made.gate["checks"]:
            self._say(f"  {'ok    ' if check['passed'] else 'FAILED'}  {check['message']}")
        is_active = made.status == ModelVersion.Status.ACTIVE
        self._say(f"version {made.number} is {'active' if is_active else 'not active'}")
        if not made.gate["passed"]:
            said = "it was activated by policy all the same" if is_active else "it was not activated"
            raise CommandError(
                f"version {made.number} does not pass its gate: {said}", returncode=GATE_NOT_PASSED
            )
        if not is_active:
            self._say("Activate it in the admin, or load with --activate.")


class _Loading:
    """One file on its way into a dataset of one model."""

    def __init__(
        self, model: RegisteredModel, path: Path, delimiter: str | None, decimal: str | None
    ) -> None:
        self.model, self.path, self.delimiter, self.decimal = model, path, delimiter, decimal

    @cached_property
    def described(self) -> str:
        """How the file is written; raises `InvalidRows` for a header that does not match."""
        with files.open_rows(self.path) as stream:
            reader = CsvReader(
                stream,  # type: ignore[arg-type]
                datasets.declared_schema(self.model),
                with_target=True,
                delimiter=self.delimiter,
                decimal=self.decimal,
            )
            return reader.dialect.described


class _Refused:
    """Where bad rows go: a temporary file that takes its name only when it holds any."""

    def __init__(self, stream: TextIO, path: Path) -> None:
        self.stream, self.path = stream, path

    def keep(self) -> int:
        """Gives the file its name if it holds rows; how many."""
        self.stream.flush()
        written = Path(self.stream.name)
        with written.open(encoding="utf-8", newline="") as stream:
            rows = max(0, sum(1 for _ in csv.reader(stream)) - 1)
        if rows:
            written.replace(self.path)
        return rows


@contextmanager
def _set_aside(path: Path) -> Iterator[_Refused]:
    """``FILE.refused.csv`` beside the file, or in VIGIA_VAR where that directory cannot be written."""
    name = f"{files.stem(path)}.refused.csv"
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
    made = tempfile.NamedTemporaryFile(  # noqa: SIM115
        "w", encoding="utf-8", newline="", dir=directory, prefix=".refused-", delete=False
    )
    return cast("TextIO", made)


def metrics_table(made: ModelVersion) -> list[str]:
    """Metrics of a version beside the baseline's and those of the version that was active, a line each."""
    columns = {f"version {made.number}": made.metrics, "baseline": made.baseline}
    if made.gate.get("active_metrics"):
        columns[f"version {made.gate['compared_with']}"] = made.gate["active_metrics"]
    lines = [f"{'metric':<10}" + "".join(f"{title:>14}" for title in columns)]
    for metric in catalogue.get(made.registered_model.name).metrics:
        cells = (f"{values[metric]:,.4g}" if metric in values else "" for values in columns.values())
        lines.append(f"{metric:<10}" + "".join(f"{cell:>14}" for cell in cells))
    return lines
