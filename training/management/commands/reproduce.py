"""Trains a version again and compares: ``manage.py reproduce MODEL NUMBER``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from training.registry import lookup
from vigia_ml.errors import VigiaError


class Command(BaseCommand):
    help = (
        "Trains a version again from its stored dataset, seed and parameters, and says whether it is the "
        "same. Writes nothing. Exit code 0 when it is, 1 when it is not."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", help="name of a registered model")
        parser.add_argument("version", type=int, help="number of one of its versions")

    def handle(self, *args: Any, model: str, version: int, **options: Any) -> None:
        from training.reports import reproduction

        try:
            found = lookup.get_version(lookup.get_model(model), version)
            self.stdout.write(
                f"{found}: {found.dataset.rows:,} rows of dataset {found.dataset.sha256[:12]}, "
                f"seed {found.seed}"
            )
            done = reproduction.reproduce(found, self._report)
        except VigiaError as error:
            raise CommandError(error.message) from None
        for change in done.then_and_now:
            self.stdout.write(
                f"  {change.name}: {change.after or 'not here'}, then {change.before or 'not there'}"
            )
        if not done.then_and_now:
            self.stdout.write("  code and libraries are those of then")
        self.stdout.write(f"  metrics: {done.metrics.in_words}")
        self.stdout.write(
            f"  predictions on the {done.holdout_rows:,} hold-out rows: {done.predictions.in_words}"
        )
        if not done.reproduced:
            raise CommandError(f"{found} was not reproduced", returncode=1)
        self.stdout.write(f"{found} was reproduced")

    def _report(self, stage: str, percent: int) -> None:
        self.stdout.write(f"  {percent:>3} %  {stage}")
