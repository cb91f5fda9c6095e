"""Writes a model file from a CSV: ``manage.py startmodel NAME data.csv --target COLUMN``."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from training import catalogue
from training.management import csv_files
from vigia_ml import notes
from vigia_ml.declaration import ModelDeclaration
from vigia_ml.scaffold import csv_survey, first_data, proposal, source, target, trial_fit
from vigia_ml.schema.csv_dialect import Told

TASKS = ("binary", "multiclass", "regression")
NAME = re.compile(r"[a-z][a-z0-9_]{0,49}", re.ASCII)
SUGGESTED = re.compile(r"^[^a-z]+|[^a-z0-9_]+", re.ASCII)


class Command(BaseCommand):
    help = (
        "Infers schema and task from a CSV and writes training/catalogue/NAME.py. After the next restart the "
        "model is trained, served, logged and documented."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="lower-case letters, digits, _; it will stand in URLs")
        parser.add_argument("file", help="CSV or CSV.GZ, also by its name in VIGIA_DATA_DIR")
        parser.add_argument("--target", required=True, metavar="COLUMN", help="the column to be predicted")
        parser.add_argument("--task", choices=TASKS, help="overrules what the target looks like")
        parser.add_argument(
            "--keep", nargs="+", action="extend", default=[], metavar="COLUMN", help="columns never left out"
        )
        parser.add_argument(
            "--drop", nargs="+", action="extend", default=[], metavar="COLUMN", help="columns to leave out"
        )
        parser.add_argument("--key", metavar="COLUMN", help="the column that identifies a row")
        parser.add_argument(
            "--drop-duplicates",
            action="store_true",
            help="train on distinct rows only, because the file lists the same thing several times",
        )
        parser.add_argument("--force", action="store_true", help="overwrite an existing file")
        parser.add_argument(
            "--output", metavar="DIR", help="write the file there instead, to look at; copies no data"
        )
        parser.add_argument(
            "--null",
            action="append",
            default=[],
            metavar="WORD",
            help="a word for a missing value, in every column or in one (COLUMN=WORD); repeatable",
        )
        parser.add_argument(
            "--skip-unlabelled", action="store_true", help="leave out rows that have no target"
        )
        csv_files.add_dialect_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        name = check_name(options["name"])
        directory = Path(options["output"]).expanduser() if options["output"] else catalogue.HERE
        path = directory / f"{name}.py"
        if path.exists() and not options["force"]:
            raise CommandError(f"{path} exists: --force overwrites it")
        wishes = proposal.Wishes(
            options["target"],
            options["task"],
            frozenset(options["keep"]),
            frozenset(options["drop"]),
            options["key"],
            options["skip_unlabelled"],
        )
        try:
            rows = csv_files.find(options["file"])
            seen = self._survey(rows, csv_files.told(options), options["null"])
            planned = proposal.propose(name, seen, wishes)
            self._report(planned)
            text = source.render(planned, rows.name, drop_duplicates=options["drop_duplicates"])
            first = self._prove(name, text, rows, seen)
        except target.Unlabelled as error:
            leave_out = _command(options, "--skip-unlabelled")
            raise CommandError(f"{error}; or leave them out: {leave_out}") from error
        except (ValueError, OSError, EOFError) as error:  # CannotInfer, TooFewRows, a file that is no gzip
            raise CommandError(str(error)) from error
        try:
            write(path, text)
        except OSError as error:
            raise CommandError(f"{path} cannot be written ({error}): try --output DIR") from error
        if not options["output"]:
            self._keep_first_data(name, rows, planned, seen)
        self._conclude(path, first, planned, copied=not options["output"])

    # -- the steps ---------------------------------------------------------------------------------

    def _survey(self, path: Path, told: Told, nulls: list[str]) -> csv_survey.Survey:
        with csv_files.open_rows(path) as stream:
            seen = csv_survey.survey(
                stream, told, nulls=nulls, progress=csv_files.progress(self._say, "read")
            )
        self._say(f"{path}: {seen.rows:,} rows, {len(seen.header)} columns; {seen.dialect.described}")
        for note in seen.notes:
            self._say(note)
        return seen

    def _prove(self, name: str, text: str, rows: Path, seen: csv_survey.Survey) -> trial_fit.Trial:
        """The written text as a module: imported, fed with every row, fitted."""
        with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
            path = Path(directory) / f"{name}.py"
            path.write_text(text, encoding="utf-8")
            declared: ModelDeclaration = trial_fit.load_declaration(path)
            opened = partial(csv_files.open_rows, rows)
            return trial_fit.run(declared, opened, seen.dialect, csv_files.progress(self._say, "checked"))

    def _keep_first_data(
        self, name: str, rows: Path, planned: proposal.Proposal, seen: csv_survey.Survey
    ) -> None:
        """Leaves the rows where `bootstrap` looks for the data of a model without a version."""
        target = settings.VAR_DIR / "first-data" / f"{name}.csv"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent) as directory:
                made = Path(directory) / target.name
                descriptor = os.open(made, os.O_WRONLY | os.O_CREAT, 0o600)
                with os.fdopen(descriptor, "wb") as stream:
                    opened = partial(csv_files.open_rows, rows)
                    skip = bool(seen.tallies[planned.target.source].blanks)
                    rewritten = first_data.write(
                        opened, stream, planned.schema, seen.dialect, skip_unlabelled=skip
                    )
                made.replace(target)
        except OSError as error:
            raise CommandError(f"the file is written, but {target} could not be: {error}") from error
        how = ", rewritten in UTF-8 with commas and points" if rewritten else ""
        self._say(f"copied  {target}{how}")

    # -- what is said ------------------------------------------------------------------------------

    def _say(self, text: str = "") -> None:
        self.stdout.write(text)
        self.stdout.flush()

    def _report(self, planned: proposal.Proposal) -> None:
        """A line a column: name, what it becomes, and why."""
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
        self, path: Path, first: trial_fit.Trial, planned: proposal.Proposal, *, copied: bool
    ) -> None:
        metric, (asked, least) = source.PRIMARY[planned.task], source.LEAST[planned.task]
        value, dummy = first.metrics[metric], first.baseline[metric]
        self._say(f"written {path}")
        said = f"{metric} {value:.3f} on its hold-out, baseline {dummy:.3f}"
        self._say(f"a first fit on {first.rows:,} rows: {said}")
        for note in first.notes:
            self._say(notes.as_text(note.to_json()))
        if first.metrics[asked] < least or value <= dummy:
            self._say(
                f"WARNING: the gate asks for {asked} {least} and for {metric} above the baseline: a first "
                "version would be trained, but not activated"
            )
        self._say()
        self._say(f"Next: read {path.name}, above all where it says guessed.")
        if copied:
            self._say("Then restart (make run): the model is trained, served, logged and documented.")


def check_name(name: str) -> str:
    """`name`, or `CommandError` when no model may be called so."""
    why = catalogue.reserved(name)
    if not why and not NAME.fullmatch(name):
        why = f"{name!r} is no name for a model: it must begin with a letter"
    if why:
        raise CommandError(
            f"{why}: choose another name, say {SUGGESTED.sub('', name.lower())[:44] or 'my'}_model"
        )
    return name


def write(path: Path, text: str) -> None:
    """Writes beside the name and renames, so that nobody imports half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=path.parent) as directory:
        made = Path(directory) / "written"
        made.write_text(text, encoding="utf-8")
        shutil.copymode(path if path.exists() else Path(__file__), made)
        made.replace(path)


def _command(options: Mapping[str, Any], *more: str) -> str:
    """The command as it was given, with more options."""
    parts = ["startmodel", options["name"], options["file"], "--target", options["target"]]
    for name in ("task", "key", "delimiter", "decimal", "thousands", "encoding", "output"):
        if options[name]:
            parts += [f"--{name}", options[name]]
    for name in ("keep", "drop"):
        if options[name]:
            parts += [f"--{name}", *options[name]]
    parts += [f"--null={word}" for word in options["null"]]
    return shlex.join([*parts, *(["--force"] if options["force"] else []), *more])


def _shown(text: str, most: int = 40) -> str:
    """`text` fit for a terminal: no control characters, not too long."""
    safe = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
    return safe if len(safe) <= most else safe[: most - 1] + "…"
