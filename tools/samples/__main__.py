"""Writes the samples: ``python -m tools.samples [NAME…] [--out DIR] [--rows N] [--seed S]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.samples import FOLDER, NAMES, SEED, write


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.samples", description="Writes the sample CSVs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all when left out")
    parser.add_argument("--out", type=Path, default=FOLDER, help="the folder to write to")
    parser.add_argument("--rows", type=int, help="how many rows; each sample's usual number when left out")
    parser.add_argument("--seed", type=int, default=SEED, help=f"{SEED} when left out")
    asked = parser.parse_args(arguments)
    for name in asked.names:
        if name not in NAMES:
            parser.error(f"{name!r} is no sample: {', '.join(NAMES)}")
    if asked.rows is not None and asked.rows < 0:
        parser.error(f"--rows {asked.rows}: a sample cannot have fewer than no rows")
    if asked.seed < 0:
        parser.error(f"--seed {asked.seed}: a seed cannot be negative")
    asked.out.mkdir(parents=True, exist_ok=True)
    for name in asked.names or NAMES:
        target = asked.out / f"{name}.csv"
        with target.open("w", encoding="utf-8", newline="") as stream:
            rows = write(name, stream, asked.rows, asked.seed)
        sys.stdout.write(f"{target}: {rows} rows, {target.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
