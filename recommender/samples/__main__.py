"""Writes the sample interactions: ``python -m recommender.samples [--out DIR] [--users N] [--seed S]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from recommender.samples import FOLDER, INTERACTIONS, SEED, USERS, write


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recommender.samples",
        description="Writes the interactions of invented users with the sample movies.",
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help="output folder")
    parser.add_argument("--users", type=int, default=USERS, help=f"number of users, default {USERS}")
    parser.add_argument("--seed", type=int, default=SEED, help=f"seed of the generator, default {SEED}")
    options = parser.parse_args(arguments)
    if min(options.users, options.seed) < 0:
        parser.error("--users and --seed must not be negative")
    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / INTERACTIONS.name
    with target.open("w", encoding="utf-8", newline="") as stream:
        rows = write(stream, options.users, options.seed)
    sys.stdout.write(f"{target}: {rows} rows, {target.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
