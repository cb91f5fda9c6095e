"""Erases again what a restored backup brought back: ``manage.py apply_erasures tombstones.jsonl``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from config import erasures


class Command(BaseCommand):
    help = "Applies a file of tombstones to this database, as ./restore does."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="tombstones.jsonl beside the backups")
        parser.add_argument("--migrate", action="store_true", help="migrate the database first")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            records = erasures.read(options["file"].read_bytes().splitlines())
        except (OSError, msgspec.MsgspecError) as error:
            raise CommandError(f"{options['file']} cannot be read: {error}") from None
        if options["migrate"]:
            call_command("migrate", verbosity=0, interactive=False)
        done = erasures.apply(records)
        self.stdout.write(f"{done.records} of {len(records)} records were new, {done.rows} rows erased again")
