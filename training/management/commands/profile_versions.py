"""Reference profiles for versions that have none: ``manage.py profile_versions [MODEL]``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from training.registry import lookup
from vigia_ml.errors import VigiaError


class Command(BaseCommand):
    help = "Makes the reference profile of versions that were trained before there were any. Others stay."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", nargs="?", help="name of a registered model; all without one")

    def handle(self, *args: Any, model: str | None = None, **options: Any) -> None:
        from training.management import profile_backfill

        versions = profile_backfill.without().select_related("registered_model", "dataset")
        if model is not None:
            try:
                versions = versions.filter(registered_model=lookup.get_model(model))
            except VigiaError as error:
                raise CommandError(error.message) from None
        made = failed = 0
        for version in versions.order_by("pk"):
            try:
                profile_backfill.make(version)
            except VigiaError as error:
                failed += 1
                self.stderr.write(f"{version}: {error.message}")
            else:
                made += 1
                self.stdout.write(f"{version}: made")
        self.stdout.write(f"{made} reference profiles made")
        if failed:
            raise CommandError("1 version has none" if failed == 1 else f"{failed} versions have none")
