"""Creates missing reference profiles of versions: ``manage.py profile_versions [MODEL]``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from training.registry import lookup
from vigia_ml.errors import VigiaError


class Command(BaseCommand):
    help = "Creates the reference profiles of versions that have none; existing profiles stay."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", nargs="?", help="name of a registered model (default: all)")

    def handle(self, *args: Any, model: str | None = None, **options: Any) -> None:
        from training.management import profile_backfill

        versions = profile_backfill.without_profile()
        if model is not None:
            try:
                versions = versions.filter(registered_model=lookup.get_model(model))
            except VigiaError as unknown:
                raise CommandError(unknown.message) from None
        created = failed = 0
        for version, error in profile_backfill.create_missing(versions):
            if error:
                failed += 1
                self.stderr.write(f"{version}: {error}")
            else:
                created += 1
                self.stdout.write(f"{version}: created")
        self.stdout.write(f"{created} reference profiles created")
        if failed:
            count = "1 version" if failed == 1 else f"{failed} versions"
            raise CommandError(f"{count} still without a reference profile; see the messages above")
