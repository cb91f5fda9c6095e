"""The argument of the commands that work on one registered model or on all."""

from __future__ import annotations

from django.core.management.base import BaseCommand, CommandError, CommandParser

from training.models import RegisteredModel
from training.registry import lookup
from vigia_ml.errors import VigiaError


class ModelsCommand(BaseCommand):
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", nargs="?", help="name of a registered model (default: all models)")

    def models(self, name: str | None) -> list[RegisteredModel]:
        try:
            return list(RegisteredModel.objects.all()) if name is None else [lookup.get_model(name)]
        except VigiaError as error:
            raise CommandError(error.message) from None
