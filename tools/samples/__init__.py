"""Sample data that the project makes itself, so that everything can be tried without anyone's files.

Each module makes the rows of one registered model in the raw form of a known published file: the same
columns, levels, units and dirt, so that one schema reads both. What is in them is made up, by the
rules each module tells in words. The same name, row count and seed give the same bytes everywhere, and
fewer rows are the beginning of more rows. `python -m tools.samples` writes the files of `training/samples/`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import numpy as np

from tools.samples import bikes, cars, cars_v3, churn, houses
from tools.samples.draws import Row

SEED: Final = 7
FOLDER: Final = Path(__file__).resolve().parents[2] / "training" / "samples"


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: its columns in order, its usual number of rows, and what makes them."""

    columns: tuple[str, ...]
    default_rows: int
    rows: Callable[[int, np.random.Generator], Iterator[Row]]


SAMPLES: Final = {
    "churn": Sample(churn.COLUMNS, churn.ROWS, churn.rows),
    "cars": Sample(cars.COLUMNS, cars.ROWS, cars.rows),
    "cars_v3": Sample(cars_v3.COLUMNS, cars_v3.ROWS, cars_v3.rows),
    "houses": Sample(houses.COLUMNS, houses.ROWS, houses.rows),
    "bikes": Sample(bikes.COLUMNS, bikes.ROWS, bikes.rows),
}
NAMES: Final = tuple(SAMPLES)


def path(name: str) -> Path:
    """The sample's file as it comes with the project."""
    _sample(name)
    return FOLDER / f"{name}.csv"


def write(name: str, stream: TextIO, rows: int | None = None, seed: int = SEED) -> int:
    """Writes one sample as CSV and gives the number of its rows.

    Parameters
    ----------
    name : one of `NAMES`.
    stream : opened as UTF-8 with ``newline=""``, so that lines end in a line feed on every platform.
    rows : how many; the sample's usual number when None.

    Raises
    ------
    ValueError : for an unknown name or a negative number of rows or seed.
    """
    sample = _sample(name)
    count = sample.default_rows if rows is None else rows
    if count < 0:
        raise ValueError(f"rows={count}: a sample cannot have fewer than no rows")
    writer = csv.DictWriter(stream, sample.columns, lineterminator="\n")
    writer.writeheader()
    # The bit generator is named, because numpy is free to change its default one; the sample's name is
    # part of the seed, so that the two car files do not begin with the same car.
    rng = np.random.Generator(np.random.PCG64([seed, *name.encode()]))
    writer.writerows(sample.rows(count, rng))
    return count


def _sample(name: str) -> Sample:
    if name not in SAMPLES:
        raise ValueError(f"name={name!r}: the samples are {', '.join(NAMES)}")
    return SAMPLES[name]
