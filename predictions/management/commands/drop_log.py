"""Removes old months of the log: ``manage.py drop_log --before 2026-01 [--although-kept] [--dry-run]``."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from predictions import retention


class Command(BaseCommand):
    help = "Removes complete months of the prediction log and records it. Their reviews stay and show it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--before", required=True, metavar="YYYY-MM", help="remove the months before this one"
        )
        parser.add_argument(
            "--although-kept", action="store_true", help="also remove months that a kept review covers"
        )
        parser.add_argument("--dry-run", action="store_true", help="list the months, remove nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            before = dt.datetime.strptime(options["before"], "%Y-%m").replace(tzinfo=dt.UTC)
        except ValueError:
            raise CommandError(f"--before {options['before']} is not a month; write it as 2026-01") from None
        done = retention.remove_before(
            before, although_kept=options["although_kept"], dry_run=options["dry_run"]
        )
        verb = "would be removed" if options["dry_run"] else "removed"
        for each in done:
            month = f"{each.month.year:04d}-{each.month.month:02d}"
            reviews = f", covered by {len(each.reviews)} drift reviews" if each.reviews else ""
            result = f"stays: {each.kept}" if each.kept else f"{verb}, about {each.rows:,} rows{reviews}"
            self.stdout.write(f"{month}: {result}")
        self.stdout.write(f"{sum(not each.kept for each in done)} months {verb}")
