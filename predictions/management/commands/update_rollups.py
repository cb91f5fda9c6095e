"""Updates the rollups: ``manage.py update_rollups [MODEL] [--recount --since TIME [--until TIME]]``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from predictions.management.model_commands import ModelsCommand
from predictions.management.moments import moment_option
from predictions.rollups import counting


class Command(ModelsCommand):
    help = "Counts new rows of the log into the hourly rollups; with --recount, recounts a window."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--recount", action="store_true", help="delete the counts of hours and recount")
        parser.add_argument("--since", type=moment_option, metavar="TIME", help="first hour to recount")
        parser.add_argument(
            "--until", type=moment_option, metavar="TIME", help="end of the recount (default: now)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        since, until = options["since"], options["until"]
        if options["recount"] != (since is not None) or (until is not None and since is None):
            raise CommandError("--recount needs --since, and --since and --until need --recount")
        for model in self.models(options["model"]):
            rows = counting.recount(model, since, until or timezone.now()) if since is not None else 0
            done = counting.roll_up(model)
            to = "nothing is logged" if done.counted_to is None else f"counted to {done.counted_to:%F %T} UTC"
            self.stdout.write(f"{model.name}: {rows + done.rows:,} rows, {to}")
