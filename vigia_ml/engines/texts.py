"""Numbers that a compiled pipeline reads from free texts. No scikit-learn and no pandas here.

A reader is a function that the fitted pipeline uses as well: it takes a text and returns numbers, keys and
tokens. The compiler stores in the model the source of each number that the graph needs: one of the reader's
numbers, a table's entry for one of its keys, or the sum of weights over its tokens. The tables hold the
fitted steps' own answers. So the graph computes with doubles alone and never sees a text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from vigia_ml.schema import Column
from vigia_ml.transformers import listings
from vigia_ml.transformers.listings import Reading

KEPT: Final = 1024
"""Texts of a column that each engine remembers with their numbers."""

READERS: Final[dict[str, Callable[[str | None], Reading]]] = {
    "car name": listings.read_name,
    "car mileage": listings.read_mileage,
    "number": listings.read_number,
    "car torque": listings.read_torque,
}


@dataclass(frozen=True)
class TextNumber:
    """One number of a text.

    column : position of the text in the schema. reader : the reader's name in `READERS`.
    kind : ``number`` (the reader's number `at`), ``key`` (the entry of `table` for the reader's key `at`,
        else `default`), ``tokens`` (the sum of `table` over the reader's tokens) or ``distinct tokens`` (that
        sum with each token counted once).
    """

    column: int
    reader: str
    kind: Literal["number", "key", "tokens", "distinct tokens"]
    at: int = 0
    table: Mapping[str, float] = field(default_factory=dict)
    default: float = 0.0

    def value(self, reading: Reading) -> float:
        """Returns the number for a reading."""
        numbers, keys, tokens = reading
        if self.kind == "number":
            return numbers[self.at]
        if self.kind == "key":
            return self.table.get(keys[self.at], self.default)
        counted = dict.fromkeys(tokens) if self.kind == "distinct tokens" else tokens
        return math.fsum(self.table[token] for token in counted if token in self.table)


class TextNumbers:
    """Reads the texts of rows; built once per engine.

    Attributes
    ----------
    columns : positions of the text columns in the schema, in the order of `read`.
    """

    def __init__(self, numbers: Sequence[TextNumber]) -> None:
        self.columns = tuple(sorted({each.column for each in numbers}))
        self._width = len(numbers)
        self._places: list[list[int]] = []
        self._read: list[Callable[[str | None], tuple[float, ...]]] = []
        for column in self.columns:
            here = [(place, each) for place, each in enumerate(numbers) if each.column == column]
            self._places.append([place for place, _ in here])
            self._read.append(_reading([each for _, each in here]))

    def read(self, texts: Sequence[Sequence[str | None]]) -> npt.NDArray[np.float64]:
        """Returns the numbers (n, k) of n texts of each of `columns`.

        Raises
        ------
        ValueError : when a column's texts are missing.
        """
        if len(texts) != len(self.columns):
            raise ValueError(f"the model reads {len(self.columns)} text columns, not {len(texts)}")
        numbers = np.empty((len(texts[0]), self._width))
        for places, read, values in zip(self._places, self._read, texts, strict=True):
            # pandas has NaN for a missing text, other sources None.
            numbers[:, places] = [read(text if isinstance(text, str) else None) for text in values]
        return numbers


def _reading(numbers: Sequence[TextNumber]) -> Callable[[str | None], tuple[float, ...]]:
    """Returns a function from a column's text to its numbers, in the order of `numbers`."""
    readers = {each.reader: READERS[each.reader] for each in numbers}

    @lru_cache(maxsize=KEPT)
    def read(text: str | None) -> tuple[float, ...]:
        readings = {name: reader(text) for name, reader in readers.items()}
        return tuple([each.value(readings[each.reader]) for each in numbers])

    return read


def to_json(numbers: Sequence[TextNumber]) -> str:
    return json.dumps([asdict(each) for each in numbers])


def from_json(text: str) -> list[TextNumber]:
    numbers: list[dict[str, Any]] = json.loads(text)
    return [TextNumber(**each) for each in numbers]


MOST_ENTRIES: Final = 1_000_000
MOST_NUMBERS: Final = 4_096


def check(numbers: Sequence[TextNumber], columns: Sequence[Column]) -> None:
    """Checks numbers that come from elsewhere against a schema's columns.

    Raises
    ------
    ValueError : names the fault.
    """
    if not 0 < len(numbers) <= MOST_NUMBERS:
        raise ValueError(f"{len(numbers):,} numbers of texts; accepted: 1 to {MOST_NUMBERS:,}")
    if sum(len(each.table) for each in numbers) > MOST_ENTRIES:
        raise ValueError(f"tables of more than {MOST_ENTRIES:,} entries")
    for each in numbers:
        if type(each.column) is not int or not 0 <= each.column < len(columns):
            raise ValueError("a text of no column")
        if columns[each.column].type not in ("category", "text"):
            raise ValueError(f"a text of {columns[each.column].name}, which is no text")
        if each.reader not in READERS:
            raise ValueError(f"an unknown reader; known: {', '.join(sorted(READERS))}")
        values, keys, _ = READERS[each.reader](None)
        ends = {"number": len(values), "key": len(keys), "tokens": 1, "distinct tokens": 1}
        if each.kind not in ends or type(each.at) is not int or not 0 <= each.at < ends[each.kind]:
            raise ValueError(f"the reader {each.reader} has no such number")
        entries = [*each.table.values(), each.default]
        if not all(type(entry) in (float, int) and math.isfinite(entry) for entry in entries):
            raise ValueError("a table with entries that are no finite numbers")


def width_of(numbers: Sequence[TextNumber]) -> int:
    """Returns the width of the graph's input `texts`."""
    return len(numbers)
