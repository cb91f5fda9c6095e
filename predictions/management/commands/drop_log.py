"""Removes old months of the log: ``manage.py drop_log --before 2026-01 [--although-kept] [--dry-run]``."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from predictions import retention


class Command(BaseCommand):
    help = "Removes whole months of the prediction log, on record. Reviews of them stay and say so."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--before", required=True, metavar="YYYY-MM", help="months before this one")
        parser.add_argument(
            "--although-kept", action="store_true", help="also months that a kept review is about"
        )
        parser.add_argument("--dry-run", action="store_true", help="say what would be done")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            before = dt.datetime.strptime(options["before"], "%Y-%m").replace(tzinfo=dt.UTC)
        except ValueError:
            raise CommandError(f"--before {options['before']}: a month is written 2026-01") from None
        done = retention.remove_before(
            before, although_kept=options["although_kept"], dry_run=options["dry_run"]
        )
        verb = "would be removed" if options["dry_run"] else "removed"
        for each in done:
            month = f"{each.month.year:04d}-{each.month.month:02d}"
            about = f", {len(each.reviews)} drift reviews are about it" if each.reviews else ""
            said = f"stays: {each.kept}" if each.kept else f"{verb}, about {each.rows:,} rows{about}"
            self.stdout.write(f"{month}: {said}")
        self.stdout.write(f"{sum(not each.kept for each in done)} months {verb}")
