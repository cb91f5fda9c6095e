"""Compares docs/metrics.md with the table of metrics.

    python -m tools.metrics_page

prints the differences and returns 1 if there are any.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

import django

from core.metrics.definitions import TABLE

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
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


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()  # applications add their metrics
    differences = faults(PAGE.read_text(encoding="utf-8"))
    lines = differences or [f"{len(TABLE)} metrics, all documented in {PAGE.name}"]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
