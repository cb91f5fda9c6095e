"""The options of ``manage.py import_model``."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from training.management import csv_files
from vigia_ml.importing.errors import NotImportable
from vigia_ml.importing.plans import Wishes

HOLDOUT_SHARE: Final = 0.2


def add_arguments(parser: ArgumentParser) -> None:
    """Adds all options but those of the CSV's dialect."""
    parser.add_argument("model", help="name of the model; a new name creates the model")
    parser.add_argument("file", nargs="+", help="file of the pipeline, or the two files of a pair")
    parser.add_argument(
        "--sha256",
        action="append",
        default=[],
        metavar="DIGEST",
        help="digest of each file, in their order",
    )
    parser.add_argument("--data", metavar="CSV", help="labelled rows: a path, or a name in VIGIA_DATA_DIR")
    parser.add_argument("--test", metavar="CSV", help="hold-out rows; --data is then the training part")
    parser.add_argument(
        "--holdout", type=float, metavar="SHARE", help=f"share of --data held out (default: {HOLDOUT_SHARE})"
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
        help="value that the author put for nulls before the pipeline; repeatable",
    )
    parser.add_argument(
        "--nulls",
        choices=("absent", "nan"),
        help="null for a DictVectorizer: absent (left out of the dict, counts as 0) or nan",
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
        help="seconds for each of the two openings (default: 600)",
    )
    parser.add_argument(
        "--memory",
        type=float,
        default=6.0,
        metavar="GIB",
        help="GiB of addresses for each opening (default: 6)",
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


def check(options: Mapping[str, Any]) -> None:
    """Raises `NotImportable` for options that contradict each other, or lie out of their bounds."""
    if options["test"] and options["holdout"] is not None:
        raise NotImportable("--holdout divides --data, and --test is a hold-out already: choose one")
    if options["holdout"] is not None and not 0.01 <= options["holdout"] <= 0.9:
        raise NotImportable("--holdout must be a share between 0.01 and 0.9")
    if not 1 <= options["timeout"] <= 86_400 or not 1 <= options["memory"] <= 4_096:
        raise NotImportable("--timeout must be 1 to 86,400 seconds, and --memory 1 to 4,096 GiB")


def file(name: str) -> Path:
    """Returns the path of a pipeline's file. Raises `FileNotFoundError` or `NotImportable`."""
    path = Path(name).expanduser()
    if path.is_dir():
        raise NotImportable(f"{name} is a directory: name the file of a fitted pipeline")
    return csv_files.find(name)


def wishes(options: Mapping[str, Any]) -> Wishes:
    """Returns what the user says about columns, nulls and classes. Raises `NotImportable`."""
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
