"""Compares docs/metrics.md with the table of metrics.

manage.py check_metrics
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from core.metrics.definitions import TABLE

ROW: Final = re.compile(r"\| `(?P<name>\w+)` \| (?P<kind>\w+) \|(?P<labels>[^|]*)\| (?P<meaning>[^|]+) \|")


def faults(page: str) -> list[str]:
    """Returns the differences between a page of documentation and the table of metrics."""
    rows = {row["name"]: row for row in map(ROW.fullmatch, page.splitlines()) if row}
    differences = [f"{name} is exposed and not documented" for name in TABLE if name not in rows]
    for name, row in rows.items():
        known = TABLE.get(name)
        if known is None:
            differences.append(f"{name} is documented and not exposed")
            continue
        labels = tuple(re.findall(r"`(\w+)`", row["labels"]))
        if row["kind"] != known.kind:
            differences.append(f"{name} is a {known.kind}, documented as a {row['kind']}")
        if labels != known.labels:
            differences.append(
                f"{name} has the labels {', '.join(known.labels) or '(none)'}, documented otherwise"
            )
    return differences


class Command(BaseCommand):
    help = "Compares the metrics of /metrics with docs/metrics.md."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--page", type=Path, default=settings.BASE_DIR / "docs" / "metrics.md")

    def handle(self, *args: Any, **options: Any) -> None:
        page: Path = options["page"]
        try:
            differences = faults(page.read_text(encoding="utf-8"))
        except OSError as error:
            raise CommandError(f"{page} cannot be read: {error}") from error
        if differences:
            raise CommandError("\n".join(differences))
        self.stdout.write(f"{len(TABLE)} metrics, all documented in {page.name}")
