"""Aggregates realised quality: ``manage.py aggregate_quality [MODEL] [--all]``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from predictions.management.model_commands import ModelsCommand
from predictions.quality import hourly


class Command(ModelsCommand):
    help = "Aggregates the realised quality of every hour whose outcomes have changed, without a time limit."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--all", action="store_true", help="aggregate every hour again, e.g. after outcomes were erased"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        for model in self.models(options["model"]):
            if options["all"]:
                hourly.mark_all_hours_dirty(model)
            hours = hourly.aggregate_changed_hours(model, skip_resting=False)
            self.stdout.write(f"{model.name}: aggregated {hours} hours")
