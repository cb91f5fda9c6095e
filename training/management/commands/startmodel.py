"""Writes a model file from a CSV: ``manage.py startmodel NAME data.csv --target COLUMN``."""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from training import catalogue
from training.management import csv_files
from vigia_ml import notes
from vigia_ml.declaration import PRIMARY, ModelDeclaration
from vigia_ml.scaffold import csv_survey, first_data, proposal, source, target, trial_fit
from vigia_ml.schema.csv_dialect import Told

TASKS = ("binary", "multiclass", "regression")
NAME = re.compile(r"[a-z][a-z0-9_]{0,49}", re.ASCII)
SUGGESTED = re.compile(r"^[^a-z]+|[^a-z0-9_]+", re.ASCII)


class Command(BaseCommand):
    help = (
        "Infers schema and task from a CSV and writes training/catalogue/NAME.py. The next restart trains, "
        "serves, logs and documents the model."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="name of the model in URLs: lower-case letters, digits, _")
        parser.add_argument("file", help="CSV or CSV.GZ: a path, or a name in VIGIA_DATA_DIR")
        parser.add_argument("--target", required=True, metavar="COLUMN", help="the column to predict")
        parser.add_argument("--task", choices=TASKS, help="task (default: inferred from the target)")
        parser.add_argument(
            "--keep",
            nargs="+",
            action="extend",
            default=[],
            metavar="COLUMN",
            help="columns to keep in any case",
        )
        parser.add_argument(
            "--drop", nargs="+", action="extend", default=[], metavar="COLUMN", help="columns to leave out"
        )
        parser.add_argument("--key", metavar="COLUMN", help="column that identifies a row")
        parser.add_argument(
            "--weight", metavar="COLUMN", help="column of sample weights: numbers of at least 0, no feature"
        )
        parser.add_argument(
            "--drop-duplicates",
            action="store_true",
            help="train on distinct rows only: the file lists the same item several times",
        )
        parser.add_argument("--force", action="store_true", help="overwrite an existing file")
        parser.add_argument(
            "--output", metavar="DIR", help="write the file to DIR for a review; copies no data"
        )
        parser.add_argument(
            "--null",
            action="append",
            default=[],
            metavar="WORD",
            help="word for a missing value, in every column or in one (COLUMN=WORD); repeatable",
        )
        parser.add_argument("--skip-unlabelled", action="store_true", help="leave out rows without a target")
        csv_files.add_dialect_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        name = check_name(options["name"])
        directory = Path(options["output"]).expanduser() if options["output"] else catalogue.HERE
        path = directory / f"{name}.py"
        if path.exists() and not options["force"]:
            raise CommandError(f"{path} already exists: --force overwrites it")
        wishes = proposal.Wishes(
            options["target"],
            options["task"],
            frozenset(options["keep"]),
            frozenset(options["drop"]),
            options["key"],
            options["skip_unlabelled"],
            options["weight"],
        )
        try:
            rows = csv_files.find(options["file"])
            survey = self._survey(rows, csv_files.told(options), options["null"])
            planned = proposal.propose(name, survey, wishes)
            self._report(planned)
            text = source.render(planned, rows.name, drop_duplicates=options["drop_duplicates"])
            trial = self._try(name, text, rows, survey)
        except target.Unlabelled as error:
            leave_out = _command(options, "--skip-unlabelled")
            raise CommandError(f"{error}; or leave them out: {leave_out}") from error
        except (ValueError, OSError, EOFError) as error:  # CannotInfer, TooFewRows, not a gzip file
            raise CommandError(str(error)) from error
        try:
            with _replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
                shutil.copymode(path if path.exists() else Path(__file__), temporary)
        except OSError as error:
            raise CommandError(f"cannot write {path} ({error}): use --output DIR") from error
        if not options["output"]:
            self._keep_first_data(name, rows, planned, survey)
        self._conclude(path, trial, planned, copied=not options["output"])

    # -- the steps ---------------------------------------------------------------------------------

    def _survey(self, path: Path, dialect: Told, nulls: list[str]) -> csv_survey.Survey:
        with csv_files.open_rows(path) as stream:
            survey = csv_survey.survey(
                stream, dialect, nulls=nulls, progress=csv_files.progress(self._say, "read")
            )
        self._say(f"{path}: {survey.rows:,} rows, {len(survey.header)} columns; {survey.dialect.described}")
        for note in survey.notes:
            self._say(note)
        return survey

    def _try(self, name: str, text: str, rows: Path, survey: csv_survey.Survey) -> trial_fit.Trial:
        """Imports the rendered text as a module, checks every row with it and fits its pipeline."""
        with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
            path = Path(directory) / f"{name}.py"
            path.write_text(text, encoding="utf-8")
            declared: ModelDeclaration = trial_fit.load_declaration(path)
            opened = partial(csv_files.open_rows, rows)
            return trial_fit.run(declared, opened, survey.dialect, csv_files.progress(self._say, "checked"))

    def _keep_first_data(
        self, name: str, rows: Path, planned: proposal.Proposal, survey: csv_survey.Survey
    ) -> None:
        """Copies the rows to the directory from which `bootstrap` trains models without a version."""
        target = settings.VAR_DIR / "first-data" / f"{name}.csv"
        try:
            with _replacing(target) as copy:
                copy.touch(0o600)
                with copy.open("wb") as stream:
                    opened = partial(csv_files.open_rows, rows)
                    skip = bool(survey.tallies[planned.target.source].blanks)
                    rewritten = first_data.write(
                        opened, stream, planned.schema, survey.dialect, skip_unlabelled=skip
                    )
        except OSError as error:
            raise CommandError(
                f"the declaration was written, but {target} cannot be written: {error}"
            ) from error
        remark = ", rewritten in UTF-8 with commas and points" if rewritten else ""
        self._say(f"copied  {target}{remark}")

    # -- output ------------------------------------------------------------------------------------

    def _say(self, text: str = "") -> None:
        self.stdout.write(text)
        self.stdout.flush()

    def _report(self, planned: proposal.Proposal) -> None:
        """Prints one line per column: name, role and remarks."""
        self._say()
        widest = max(len(_shown(each.source)) for each in planned.planned)
        for each in planned.planned:
            kind = each.column.type if each.column else ""
            part = {"feature": kind, "target": f"TARGET {kind}"}.get(each.part, each.part.upper())
            self._say(
                f"  {_shown(each.source):<{widest}}  {part:<15}  {_shown('; '.join(each.remarks), 500)}"
            )
            if each.suspicion:
                self._say(f"  {'':<{widest}}  {'SUSPICIOUS':<15}  {each.suspicion}")
        self._say()
        self._say(f"task: {planned.task} ({planned.target.remarks[-1]})")
        for hint in planned.hints:
            self._say(f"hint: {hint}")

    def _conclude(
        self, path: Path, trial: trial_fit.Trial, planned: proposal.Proposal, *, copied: bool
    ) -> None:
        metric, (gate_metric, minimum) = PRIMARY[planned.task], source.LEAST[planned.task]
        value, baseline = trial.metrics[metric], trial.baseline[metric]
        self._say(f"written {path}")
        result = f"{metric} {value:.3f} on its hold-out, baseline {baseline:.3f}"
        self._say(f"a first fit on {trial.rows:,} rows: {result}")
        for note in trial.notes:
            self._say(notes.as_text(note.to_json()))
        if trial.metrics[gate_metric] < minimum or value <= baseline:
            self._say(
                f"WARNING: the gate requires {gate_metric} {minimum} and {metric} above the baseline: a "
                "first version would be trained, but not activated"
            )
        self._say()
        self._say(f"Next: read {path.name}, above all where it says guessed.")
        if copied:
            self._say("Then restart (make run): the model is trained, served, logged and documented.")


def check_name(name: str) -> str:
    """Returns `name`, or raises `CommandError` when a model cannot have it."""
    reason = catalogue.reserved(name)
    if not reason and not NAME.fullmatch(name):
        reason = f"{name!r} is not a valid name of a model: it must begin with a letter"
    if reason:
        suggestion = f"{SUGGESTED.sub('', name.lower())[:44] or 'my'}_model"
        raise CommandError(f"{reason}: choose another name, such as {suggestion}")
    return name


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path, which then takes the name `path`, so that no process reads half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=path.parent) as directory:
        temporary = Path(directory) / "written"
        yield temporary
        temporary.replace(path)


def _command(options: Mapping[str, Any], *more: str) -> str:
    """Returns the user's command line with more options."""
    parts = ["startmodel", options["name"], options["file"], "--target", options["target"]]
    for name in ("task", "key", "weight", "delimiter", "decimal", "thousands", "encoding", "output"):
        if options[name]:
            parts += [f"--{name}", options[name]]
    for name in ("keep", "drop"):
        if options[name]:
            parts += [f"--{name}", *options[name]]
    parts += [f"--null={word}" for word in options["null"]]
    return shlex.join([*parts, *(["--force"] if options["force"] else []), *more])


def _shown(text: str, limit: int = 40) -> str:
    """Returns `text` for a terminal: without control characters, at most `limit` characters."""
    safe = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"
