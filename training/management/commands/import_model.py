"""Imports a fitted pipeline: ``manage.py import_model MODEL FILE --sha256 DIGEST --data ROWS.csv``."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser

from training import catalogue
from training.management import csv_files, import_options
from training.management.import_options import HOLDOUT_SHARE
from training.management.run_progress import execute_and_present
from training.models import Origin, RegisteredModel, TrainingRun
from training.registry import declarations, lookup
from training.runs import pushes
from vigia_ml.declaration import PRIMARY, ModelDeclaration, Task
from vigia_ml.errors import VigiaError
from vigia_ml.importing import inferred_schema, package, plans, rows
from vigia_ml.importing.errors import NotImportable
from vigia_ml.importing.package import Report, Source
from vigia_ml.importing.package_files import HOLDOUT, TRAIN
from vigia_ml.importing.plans import Wishes
from vigia_ml.importing.rows import Rows
from vigia_ml.scaffold import csv_survey
from vigia_ml.schema import DatasetSchema, InvalidRows
from vigia_ml.schema.csv_dialect import Told

DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
SEED: Final = 1
SHOWN_NAMES: Final = 12


@dataclass(frozen=True)
class Target:
    """The model of the import. declared : its declaration, if it exists; task : that of the version."""

    name: str
    declared: ModelDeclaration | None
    schema: DatasetSchema
    task: Task

    @property
    def threshold(self) -> float | None:
        if self.task != "binary":
            return None
        return self.declared.threshold if self.declared else 0.5


class Command(BaseCommand):
    help = (
        "Imports a fitted pipeline (pickle, joblib, skops), or the pair (DictVectorizer, model), as a "
        "version. The file is opened in a process without database, keys and network; its compiled graph "
        "comes back."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        import_options.add_arguments(parser)
        csv_files.add_dialect_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._import(options)
        except InvalidRows as error:
            for fault in error.faults:
                self.stderr.write(fault.described)
            raise CommandError(_printable(f"{error.message}; nothing was imported")) from error
        except (VigiaError, ValueError, OSError) as error:
            raise CommandError(_printable(f"{getattr(error, 'message', error)}")) from error

    def _import(self, options: dict[str, Any]) -> None:
        files = tuple(map(import_options.file, options["file"]))
        if len(files) > 2:
            raise NotImportable("two files at most: the DictVectorizer's and the model's")
        digests = self._digests(files, [each.strip().lower() for each in options["sha256"]])
        lookup.sync_catalogue()
        name = options["model"]
        pushes.check_name(name)
        if not options["data"]:
            raise NotImportable(
                "--data is missing: name a CSV with the columns that the pipeline was fitted on and the "
                "target; the rows give the hold-out's metrics and the reference profile"
            )
        import_options.check(options)
        source = Source(
            files,
            digests,
            tuple(options["allow_class"]),
            options["other_version"],
            options["timeout"],
            int(options["memory"] * 2**30),
        )
        self._say(f"opening {', '.join(path.name for path in files)} in a process of its own")
        report = package.inspect(source)
        self._report(report)
        wishes = import_options.wishes(options)
        with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
            run = self._packed(name, source, report, wishes, options, Path(directory))
        execute_and_present(run, self._say)

    # -- the steps ---------------------------------------------------------------------------------

    def _digests(self, files: tuple[Path, ...], given: list[str]) -> tuple[str, ...]:
        """Returns the digests that the user gave; without one, prints the files' and stops."""
        if len(given) != len(files) or not all(map(DIGEST.fullmatch, given)):
            for path in files:
                self._say(f"sha256 of {path.name}: {package.copy(path, None)}")
            options = " ".join(f"--sha256 {package.copy(path, None)}" for path in files)
            raise NotImportable(
                "--sha256 is missing or is not 64 hexadecimal digits for each file. Opening a pickle runs "
                "the code that is in it, so first compare the digest above with the one that the author "
                "published or told you. If it is the same, and you trust the author, call the command again "
                f"with {options}"
            )
        return tuple(given)

    def _report(self, report: Report) -> None:
        names = [name for name in report.names if name.partition(".")[0] not in ("builtins", "copyreg")]
        shown = ", ".join(names[:SHOWN_NAMES]) + (", …" if len(names) > SHOWN_NAMES else "")
        self._say(f"  it uses {shown}")
        self._say(f"  it holds {report.description.estimator}")
        for library, version in report.versions.items():
            self._say(
                f"  WARN  it was written under {library} {version}: compare its answers with the author's"
            )
        if report.description.others:
            self._say(f"  not used: {', '.join(report.description.others)}")

    def _packed(
        self,
        name: str,
        source: Source,
        report: Report,
        wishes: Wishes,
        options: dict[str, Any],
        directory: Path,
    ) -> TrainingRun:
        """Builds the package and creates the run."""
        told = csv_files.told(options)
        target = self._target(name, report, wishes, options, told)
        read = self._rows(target, report, wishes, options, told, directory)
        plan = plans.plan(read.schema, target.task, report.description, wishes, read.with_nulls)
        for note in plan.notes:
            self._say(f"  note  {note}")
        self._say("compiling the pipeline and comparing both, in a process of its own")
        seed = target.declared.seed if target.declared else SEED
        found = package.convert(source, plan, read.schema, target.task, target.threshold, seed, directory)
        package.manifest(
            directory,
            read.schema,
            target.task,
            plan,
            found,
            title=options["title"] or (target.declared.title if target.declared else name),
            description=target.declared.description if target.declared else "",
            primary_metric=target.declared.primary_metric if target.declared else PRIMARY[target.task],
            threshold=target.threshold,
            activation_reason=options["activate"].strip(),
        )
        return pushes.create(name, directory, origin=Origin.IMPORTED, by=None)

    def _target(
        self, name: str, report: Report, wishes: Wishes, options: dict[str, Any], told: Told
    ) -> Target:
        """Returns the declared schema of a model of the catalogue; infers any other from the CSV."""
        known = RegisteredModel.objects.filter(name=name).first()
        declared = declarations.of(known) if known is not None else None
        if name in catalogue.names():
            declared = catalogue.get(name)
            for option in ("target", "key", "null"):
                if options[option]:
                    raise NotImportable(f"--{option} is for a new model; {name} declares its columns")
            plans.check_task(declared.task, report.description)
            return Target(name, declared, declared.schema, declared.task)
        column = options["target"] or (declared.schema.target.name if declared else None)
        if column is None:
            raise NotImportable(f"--target is missing: name the CSV's column that {name} predicts")
        path = csv_files.find(options["data"])
        with csv_files.open_rows(path) as stream:
            survey = csv_survey.survey(stream, told, nulls=options["null"])
        key = options["key"] or (declared.schema.key if declared else None)
        inferred = inferred_schema.infer(survey, report.description, wishes, column, key)
        for note in inferred.notes:
            self._say(f"  note  {note}")
        return Target(name, declared, inferred.schema, inferred.task)

    def _rows(
        self,
        target: Target,
        report: Report,
        wishes: Wishes,
        options: dict[str, Any],
        told: Told,
        directory: Path,
    ) -> Rows:
        path = csv_files.find(options["data"])
        if options["test"]:
            test = csv_files.find(options["test"])
            rows.read(partial(csv_files.open_rows, path), target.schema, told, directory / TRAIN)
            rows.read(partial(csv_files.open_rows, test), target.schema, told, directory / HOLDOUT)
        else:
            default = target.declared.holdout if target.declared else HOLDOUT_SHARE
            share = default if options["holdout"] is None else options["holdout"]
            whole = directory / "rows.parquet"
            rows.read(partial(csv_files.open_rows, path), target.schema, told, whole)
            seed = target.declared.seed if target.declared else SEED
            rows.divided(whole, target.schema, target.task, share, seed, directory)
            whole.unlink()
        read = rows.finished(
            target.schema, target.task, report.description, wishes, directory, apart=bool(options["test"])
        )
        self._say(f"{path.name}: {read.train:,} rows to compare with, {read.holdout:,} held out")
        if read.shared:
            self._say(
                f"  WARN  {read.shared:,} of the rows of --test are in --data, too: metrics flatter the model"
            )
        if not options["test"]:
            self._say(
                "  note  the author may have fitted the pipeline on rows that are held out here, so its "
                "metrics may flatter it; --test names rows that it never saw"
            )
        return read

    def _say(self, text: str) -> None:
        self.stdout.write(_printable(text))
        self.stdout.flush()


def _printable(text: str) -> str:
    """Returns a text without control characters: a file's names may hold a terminal's commands."""
    return "".join(each if each.isprintable() or each == "\n" else "�" for each in text)
