"""Whether docs/metrics.md says of every metric what it is, and of none that is not there.

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
    """What a page of documentation says wrongly, or not at all."""
    written = {found["name"]: found for found in map(ROW.fullmatch, page.splitlines()) if found}
    wrong = [f"{name} is exposed and not documented" for name in TABLE if name not in written]
    for name, found in written.items():
        known = TABLE.get(name)
        if known is None:
            wrong.append(f"{name} is documented and not exposed")
            continue
        labels = tuple(re.findall(r"`(\w+)`", found["labels"]))
        if found["kind"] != known.kind:
            wrong.append(f"{name} is a {known.kind}, documented as a {found['kind']}")
        if labels != known.labels:
            wrong.append(f"{name} has the labels {', '.join(known.labels) or '(none)'}, documented otherwise")
    return wrong


class Command(BaseCommand):
    help = "Compares the metrics of /metrics with docs/metrics.md."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--page", type=Path, default=settings.BASE_DIR / "docs" / "metrics.md")

    def handle(self, *args: Any, **options: Any) -> None:
        page: Path = options["page"]
        try:
            wrong = faults(page.read_text(encoding="utf-8"))
        except OSError as error:
            raise CommandError(f"{page} cannot be read: {error}") from error
        if wrong:
            raise CommandError("\n".join(wrong))
        self.stdout.write(f"{len(TABLE)} metrics, all documented in {page.name}")
