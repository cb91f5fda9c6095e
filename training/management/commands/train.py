"""Trains a version in this process: ``manage.py train MODEL [--activate]``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from training.management.run_progress import activation_reason, add_activation_arguments, execute_and_present
from training.registry import lookup
from training.runs import requests as run_requests
from vigia_ml.errors import VigiaError


class Command(BaseCommand):
    help = (
        "Trains a version of a registered model in this process: on the rows of its active version, or, for "
        "a recommender, on the catalogue as it is now."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", help="name of a registered model")
        add_activation_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        reason = activation_reason(options, "trained with --activate")
        lookup.sync_catalogue()
        try:
            model = lookup.get_model(options["model"])
            run = run_requests.request_again(model, by=None, activation_reason=reason)
        except VigiaError as error:
            raise CommandError(error.message) from error
        execute_and_present(run, self._say)

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()
