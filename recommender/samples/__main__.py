"""Writes the interactions: ``python -m recommender.samples [--out DIR] [--users N] [--seed S]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from recommender.samples import FOLDER, INTERACTIONS, SEED, USERS, write


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recommender.samples", description="Writes what invented users did with the movies."
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help="the folder to write to")
    parser.add_argument("--users", type=int, default=USERS, help=f"{USERS} when left out")
    parser.add_argument("--seed", type=int, default=SEED, help=f"{SEED} when left out")
    asked = parser.parse_args(arguments)
    if min(asked.users, asked.seed) < 0:
        parser.error("neither --users nor --seed can be negative")
    asked.out.mkdir(parents=True, exist_ok=True)
    target = asked.out / INTERACTIONS.name
    with target.open("w", encoding="utf-8", newline="") as stream:
        rows = write(stream, asked.users, asked.seed)
    sys.stdout.write(f"{target}: {rows} rows, {target.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
