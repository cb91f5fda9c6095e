"""Aggregates realised quality: ``manage.py aggregate_quality [MODEL] [--all]``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from predictions.quality import hourly
from training.models import RegisteredModel
from training.registry import lookup
from vigia_ml.errors import VigiaError


class Command(BaseCommand):
    help = "Aggregates the realised quality of every hour whose outcomes have changed, without a time limit."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", nargs="?", help="name of a registered model (default: all models)")
        parser.add_argument(
            "--all", action="store_true", help="aggregate every hour again, e.g. after outcomes were erased"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        for model in self._models(options["model"]):
            if options["all"]:
                hourly.mark_all_hours_dirty(model)
            hours = hourly.aggregate_changed_hours(model, skip_resting=False)
            self.stdout.write(f"{model.name}: aggregated {hours} hours")

    def _models(self, name: str | None) -> list[RegisteredModel]:
        if name is None:
            return list(RegisteredModel.objects.all())
        try:
            return [lookup.get_model(name)]
        except VigiaError as error:
            raise CommandError(error.message) from None
