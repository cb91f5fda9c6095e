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
from training.management import csv_files
from training.management.run_progress import execute_and_present
from training.models import Origin, RegisteredModel, TrainingRun
from training.registry import declarations, lookup
from training.runs import pushes
from vigia_ml.declaration import PRIMARY, ModelDeclaration, Task
from vigia_ml.errors import VigiaError
from vigia_ml.importing import inferred_schema, package, plans, rows
from vigia_ml.importing.errors import NotImportable
from vigia_ml.importing.package import Report, Source
from vigia_ml.importing.package_files import HOLDOUT as HOLDOUT_ROWS
from vigia_ml.importing.package_files import TRAIN
from vigia_ml.importing.plans import Wishes
from vigia_ml.importing.rows import Rows
from vigia_ml.scaffold import csv_survey
from vigia_ml.schema import DatasetSchema, InvalidRows
from vigia_ml.schema.csv_dialect import Told

DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
HOLDOUT: Final = 0.2
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
        parser.add_argument("model", help="name of the model; a new name creates the model")
        parser.add_argument("file", nargs="+", help="file of the pipeline, or the two files of a pair")
        parser.add_argument(
            "--sha256",
            action="append",
            default=[],
            metavar="DIGEST",
            help="digest of each file, in their order",
        )
        parser.add_argument(
            "--data", metavar="CSV", help="labelled rows: a path, or a name in VIGIA_DATA_DIR"
        )
        parser.add_argument("--test", metavar="CSV", help="hold-out rows; --data is then the training part")
        parser.add_argument(
            "--holdout", type=float, metavar="SHARE", help=f"share of --data held out (default: {HOLDOUT})"
        )
        parser.add_argument("--target", metavar="COLUMN", help="column to predict, for a new model")
        parser.add_argument("--key", metavar="COLUMN", help="column that identifies a row, for a new model")
        parser.add_argument("--title", default="", help="title of a new model (default: its name)")
        parser.add_argument(
            "--activate", default="", metavar="REASON", help="activate the version if it passes its gate"
        )
        parser.add_argument(
            "--columns", metavar="A,B,…", help="columns in the author's order, if the file does not name them"
        )
        parser.add_argument(
            "--fill",
            action="append",
            default=[],
            metavar="COLUMN=VALUE",
            help="value of a null, if the author filled it before the pipeline; repeatable",
        )
        parser.add_argument(
            "--nulls",
            choices=("absent", "nan"),
            help="a null in a DictVectorizer's dict: left out, so 0 (absent), or kept (nan)",
        )
        parser.add_argument(
            "--classes",
            metavar="A,B,…",
            help="labels in the order of the model's classes, if these are numbers",
        )
        parser.add_argument(
            "--null", action="append", default=[], metavar="WORD", help="word for a missing value in the CSV"
        )
        parser.add_argument(
            "--timeout",
            type=float,
            default=600.0,
            metavar="SECONDS",
            help="limit of each opening (default: 600)",
        )
        parser.add_argument(
            "--memory", type=float, default=6.0, metavar="GIB", help="limit of memory in GiB (default: 6)"
        )
        parser.add_argument(
            "--allow-class",
            action="append",
            default=[],
            metavar="MODULE.NAME",
            help="class that the file may use besides those of the known libraries; repeatable",
        )
        parser.add_argument(
            "--other-version", action="store_true", help="open a file of another release of scikit-learn"
        )
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
        files = tuple(map(_file, options["file"]))
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
        self._check_numbers(options)
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
        wishes = _wishes(options)
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

    def _check_numbers(self, options: dict[str, Any]) -> None:
        if options["test"] and options["holdout"] is not None:
            raise NotImportable("--holdout divides --data, and --test is a hold-out already: choose one")
        if options["holdout"] is not None and not 0.01 <= options["holdout"] <= 0.9:
            raise NotImportable("--holdout must be a share between 0.01 and 0.9")
        if not 1 <= options["timeout"] <= 86_400 or not 1 <= options["memory"] <= 4_096:
            raise NotImportable("--timeout must be 1 to 86,400 seconds, and --memory 1 to 4,096 GiB")

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
            rows.read(partial(csv_files.open_rows, test), target.schema, told, directory / HOLDOUT_ROWS)
        else:
            default = target.declared.holdout if target.declared else HOLDOUT
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


def _file(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        raise NotImportable(f"{name} is a directory: name the file of a fitted pipeline")
    return csv_files.find(name)


def _wishes(options: dict[str, Any]) -> Wishes:
    fill = {}
    for each in options["fill"]:
        column, mark, value = each.partition("=")
        if not mark or not value:
            raise NotImportable(f"--fill {each}: write it as COLUMN=VALUE")
        fill[column.strip()] = value
    columns, classes = (
        tuple(part.strip() for part in options[name].split(",")) if options[name] else None
        for name in ("columns", "classes")
    )
    return Wishes(columns, fill, options["nulls"], classes)
