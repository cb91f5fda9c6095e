"""Trains a version again and compares the results: ``manage.py reproduce MODEL NUMBER``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from training.registry import lookup
from vigia_ml.errors import VigiaError


class Command(BaseCommand):
    help = (
        "Trains a version again from its stored dataset, seed and parameters, and reports whether the "
        "results are the same. Writes nothing. Exit code: 0 the same, 1 different."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", help="name of a registered model")
        parser.add_argument("version", type=int, help="number of the version")

    def handle(self, *args: Any, model: str, version: int, **options: Any) -> None:
        from training.reports import reproduction

        try:
            row = lookup.get_version(lookup.get_model(model), version)
            self.stdout.write(
                f"{row}: {row.dataset.rows:,} rows of dataset {row.dataset.sha256[:12]}, seed {row.seed}"
            )
            result = reproduction.reproduce(row, self._report)
        except VigiaError as error:
            raise CommandError(error.message) from None
        for change in result.changes:
            self.stdout.write(
                f"  {change.name}: {change.after or 'missing'} now, {change.before or 'missing'} then"
            )
        if not result.changes:
            self.stdout.write("  code and libraries have not changed")
        self.stdout.write(f"  metrics: {result.metrics.message}")
        self.stdout.write(
            f"  predictions on the {result.holdout_rows:,} hold-out rows: {result.predictions.message}"
        )
        if not result.reproduced:
            raise CommandError(f"{row} was not reproduced", returncode=1)
        self.stdout.write(f"{row} was reproduced")

    def _report(self, stage: str, percent: int) -> None:
        self.stdout.write(f"  {percent:>3} %  {stage}")
