"""Numbers that a compiled pipeline reads from free texts. No scikit-learn and no pandas here.

A reader is a function that the fitted pipeline uses as well: it takes a text and returns numbers, keys and
tokens. The compiler stores in the model the source of each number that the graph needs: one of the reader's
numbers, a table's entry for one of its keys, the sum of weights over its tokens, or the terms of a vectorizer
(`vigia_ml.engines.terms`). The tables hold the fitted steps' own answers. So the graph computes with doubles
alone and never sees a text.
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

from vigia_ml.engines.terms import MOST_NUMBERS, MOST_WORK, BadTerms, Terms, TextVector
from vigia_ml.schema import Column
from vigia_ml.transformers import listings
from vigia_ml.transformers.listings import Reading

KEPT: Final = 1024
"""Texts of a column that each engine remembers with their numbers."""
KEPT_NUMBERS: Final = 500_000
"""Most numbers of a column's texts that each engine remembers: 4 MB."""
LONGEST_KEPT: Final = 4_000
"""Longest text that is remembered, in characters."""
MOST_ENTRIES: Final = 200_000
"""Most entries of a table of keys or tokens."""

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

    def check(self, column: Column) -> None:
        """Raises `ValueError` for an unknown reader, or a table that is too large or not finite."""
        if self.reader not in READERS or self.kind not in ("number", "key", "tokens", "distinct tokens"):
            raise ValueError(f"the reader {self.reader!r} or the kind {self.kind!r} is unknown")
        if column.type not in ("text", "category"):
            raise ValueError(f"{column.name} is no text, but {column.type}")
        numbers, keys, _ = READERS[self.reader](None)
        places = {"number": len(numbers), "key": len(keys)}.get(self.kind, 1)
        if type(self.at) is not int or not 0 <= self.at < places:
            raise ValueError(f"the reader {self.reader} has no {self.kind} {self.at!r}")
        if len(self.table) > MOST_ENTRIES:
            raise ValueError(
                f"a table has {len(self.table):,} entries, at most {MOST_ENTRIES:,} are accepted"
            )
        for number in (*self.table.values(), self.default):
            if type(number) not in (float, int) or not math.isfinite(number):
                raise ValueError("a table holds an entry that is no finite number")


Read = TextNumber | TextVector


def width_of(numbers: Sequence[Read]) -> int:
    """Returns how many numbers a row's texts give."""
    return sum(each.width if isinstance(each, TextVector) else 1 for each in numbers)


def check(numbers: Sequence[Read], columns: Sequence[Column]) -> None:
    """Raises `ValueError` unless every process may read texts of a schema's columns for these numbers.

    A compiled model may come from a client: readers, settings, positions and sizes are compared with what
    the compiler can write.
    """
    for each in numbers:
        if type(each.column) is not int or not 0 <= each.column < len(columns):
            raise ValueError(f"the schema has no column at position {each.column!r}")
        each.check(columns[each.column])
    if not numbers:
        raise ValueError("the metadata names no number of a text")
    read = {(id(each.terms), each.column): each for each in numbers if isinstance(each, TextVector)}
    work = sum(each.terms.work(columns[each.column]) for each in read.values())
    if work > MOST_WORK:
        raise BadTerms(
            f"the n-grams of a row's texts may have {work:,} characters, more than {MOST_WORK:,}: declare "
            "a smaller max_length, or use shorter n-grams"
        )
    if width_of(numbers) > MOST_NUMBERS:
        raise BadTerms(
            f"the texts of a row give {width_of(numbers):,} numbers, at most {MOST_NUMBERS:,} are supported: "
            "set max_features, add TruncatedSVD or SelectKBest, or use a linear model"
        )


class TextNumbers:
    """Reads the texts of rows; built once per engine.

    Attributes
    ----------
    columns : positions of the text columns in the schema, in the order of `read`.
    width : number of numbers per row.
    """

    def __init__(self, numbers: Sequence[Read]) -> None:
        self.columns = tuple(sorted({each.column for each in numbers}))
        self.width = width_of(numbers)
        widths = [each.width if isinstance(each, TextVector) else 1 for each in numbers]
        ends = np.cumsum([0, *widths]).tolist()
        self._places: list[list[int]] = []
        self._read: list[Callable[[str | None], Numbers]] = []
        for column in self.columns:
            here = [at for at, each in enumerate(numbers) if each.column == column]
            self._places.append([place for at in here for place in range(ends[at], ends[at + 1])])
            self._read.append(_reading([numbers[at] for at in here]))

    def read(self, texts: Sequence[Sequence[str | None]]) -> npt.NDArray[np.float64]:
        """Returns the numbers (n, k) of n texts of each of `columns`.

        Raises
        ------
        ValueError : when a column's texts are missing.
        """
        if len(texts) != len(self.columns):
            raise ValueError(f"the model reads {len(self.columns)} text columns, not {len(texts)}")
        numbers = np.empty((len(texts[0]), self.width))
        for places, read, values in zip(self._places, self._read, texts, strict=True):
            # pandas has NaN for a missing text, other sources None.
            numbers[:, places] = [read(text if isinstance(text, str) else None) for text in values]
        return numbers


Numbers = tuple[float, ...] | npt.NDArray[np.float64]


def _reading(numbers: Sequence[Read]) -> Callable[[str | None], Numbers]:
    """Returns a function from a column's text to its numbers, in the order of `numbers`."""
    read = _of_texts(numbers)
    kept = min(KEPT, KEPT_NUMBERS // max(1, width_of(numbers)))
    remembered = lru_cache(maxsize=kept)(read)
    return lambda text: read(text) if text is not None and len(text) > LONGEST_KEPT else remembered(text)


def _of_texts(numbers: Sequence[Read]) -> Callable[[str | None], Numbers]:
    own = [each for each in numbers if isinstance(each, TextNumber)]
    readers = {each.reader: READERS[each.reader] for each in own}
    terms = {id(each.terms): each.terms for each in numbers if isinstance(each, TextVector)}

    def plain(text: str | None) -> tuple[float, ...]:
        readings = {name: reader(text) for name, reader in readers.items()}
        return tuple([each.value(readings[each.reader]) for each in own])

    if not terms:
        return plain

    def read(text: str | None) -> npt.NDArray[np.float64]:
        found = {at: each.read(text) for at, each in terms.items()}
        singles = iter(plain(text))
        return np.concatenate([
            each.values(found[id(each.terms)]) if isinstance(each, TextVector) else (next(singles),)
            for each in numbers
        ])  # fmt: skip

    return read


def to_json(numbers: Sequence[Read]) -> str:
    """Returns the numbers as JSON: a list, or an object with the terms that vectors share."""
    terms = list({id(each.terms): each.terms for each in numbers if isinstance(each, TextVector)}.values())
    places = {id(each): at for at, each in enumerate(terms)}
    plain = [
        each.to_json(places[id(each.terms)]) if isinstance(each, TextVector) else asdict(each)
        for each in numbers
    ]
    return json.dumps({"terms": [each.to_json() for each in terms], "numbers": plain} if terms else plain)


def from_json(text: str) -> list[Read]:
    """Reads what `to_json` wrote; `check` judges whether the numbers may be read.

    Raises
    ------
    ValueError : when the text was not written by `to_json`.
    """
    plain: Any = json.loads(text)
    try:
        terms = [Terms.from_json(each) for each in plain["terms"]] if isinstance(plain, dict) else []
        numbers: list[dict[str, Any]] = plain["numbers"] if isinstance(plain, dict) else plain
        return [_number(each, terms) for each in numbers]
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"the numbers of texts have a wrong form: {error}") from error


def _number(data: dict[str, Any], terms: Sequence[Terms]) -> Read:
    if data["kind"] != "vector":
        return TextNumber(**data)
    if type(data["terms"]) is not int or data["terms"] < 0:
        raise ValueError("a vector names no terms")
    return TextVector.from_json(data, terms[data["terms"]])
