"""Adds up what became of predictions: ``manage.py aggregate_quality [MODEL] [--all]``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from predictions.quality import realised
from training.models import RegisteredModel
from training.registry import lookup
from vigia_ml.errors import VigiaError


class Command(BaseCommand):
    help = "Adds up the realised quality of every hour whose outcomes have changed, now and to the end."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", nargs="?", help="name of a registered model; all without one")
        parser.add_argument(
            "--all", action="store_true", help="every hour anew: after outcomes were erased, say"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        for model in self._models(options["model"]):
            if options["all"]:
                realised.mark_all_hours_dirty(model)
            hours = realised.aggregate_changed_hours(model, skip_resting=False)
            self.stdout.write(f"{model.name}: {hours} hours added up")

    def _models(self, name: str | None) -> list[RegisteredModel]:
        if name is None:
            return list(RegisteredModel.objects.all())
        try:
            return [lookup.get_model(name)]
        except VigiaError as error:
            raise CommandError(error.message) from None
