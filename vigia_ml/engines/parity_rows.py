"""The rows on which both engines are compared. No Django here; see `vigia_ml.engines.parity`."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from vigia_ml.engines import edges
from vigia_ml.schema import Column, DatasetSchema, moment_arrays
from vigia_ml.schema.columns import EXACT_INTEGER, LARGEST
from vigia_ml.schema.faults import first_of
from vigia_ml.schema.matrix import levels_of
from vigia_ml.schema.moments import HIGHEST, LOWEST, canonical, code

NULL_SHARE: Final = 0.02  # of a random row's nullable values
JITTERED_ROWS: Final = 150
TEXT_ROWS: Final = 200  # rows with altered texts
RANDOM: Final = "a random row"
UNKNOWN_TEXTS: Final = ("(a text training did not hold)", "missing", "nan", "None", "0")
SPECIAL_DAYS: Final = (
    "1899-12-31", "1900-02-28", "1900-03-01", "1969-12-31", "1970-01-01", "2000-02-29", "2000-12-31",
    "2023-12-31", "2024-02-29", "2024-03-01", "2024-12-31", "2100-02-28", "2100-03-01",
)  # fmt: skip
"""Ends of months and years, among them those of leap years and of centuries."""
SPECIAL_TIMES: Final = {"date": ("",), "datetime": ("", "T00:59:59", "T23:59:59.999999")}
HARD_TEXTS: Final = (
    "\u0130STANBUL \u0131slak \u0130I",  # İ becomes two characters in lower case; dotless i
    "Stra\u00dfe GRO\u1e9e \ufb01nance \u2163 \u00b2 \u03b0\u03a3\u03a3",  # sharp s, ligature, numeral
    "cafe\u0301 na\u00efve \u212b \uff21\uff42\uff43 n\u0360o",  # combining marks, full width
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8 \u3067\u3059",  # a script without spaces
    "\U0001f600 \U0001f469\u200d\U0001f467 ok\u200bok",  # emoji, joiners
    "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u0646\u064e\u0635\u0651",  # vowel points
    "a b  c\t\td\n\ne\u00a0f\u2028g",  # white space of all kinds
    "...!?-- _ __ a_b",  # hardly a word
    "don't e-mail 3.5 x2",
)
"""Texts that two readers may take apart otherwise."""
Texts = npt.NDArray[np.object_]
Changes = list[tuple[str, dict[str, Any]]]


def rows_to_compare(
    schema: DatasetSchema, train: pd.DataFrame, seed: int, random_rows: int, pipeline: Any = None
) -> tuple[pd.DataFrame, Texts, edges.EdgeCount]:
    """Returns features (n, p), the kind of each row (n,), and the number of edges of `pipeline` in them."""
    rng = np.random.default_rng(seed)
    changes = _limits(schema)
    sides, counted = edges.around(pipeline, schema, train, rng) if pipeline is not None else ([], edges.NONE)
    train = edges.coded(schema, train)  # dates as numbers; `_typed` makes them dates again
    base = _resampled(train, len(changes), rng)
    parts = [
        _changed(schema, base, [change for _, change in changes]),
        _changed(schema, train.iloc[[row for _, row, _ in sides]], [change for _, _, change in sides]),
        _jittered(schema, _resampled(train, JITTERED_ROWS, rng), rng),
        _random(schema, train, random_rows, rng),
    ]
    kinds = [kind for kind, _ in changes] + [kind for kind, _, _ in sides]
    kinds += ["a row of the training data with a changed last digit"] * JITTERED_ROWS + [RANDOM] * random_rows
    if any(column.type == "text" for column in schema.columns):
        parts.append(_altered(schema, _resampled(train, TEXT_ROWS, rng), rng))
        kinds += ["a row with other texts"] * TEXT_ROWS
    joined = {
        column.name: _typed(column, np.concatenate([part[column.name] for part in parts]))
        for column in schema.columns
    }
    return pd.DataFrame(joined), np.array(kinds, dtype=object), counted


def _limits(schema: DatasetSchema) -> Changes:
    """Returns changes of a row to levels, bounds and nulls, each with its description."""
    changes: Changes = []
    nullable = [column.name for column in schema.columns if column.nullable]
    for column in schema.columns:
        for value in _special(column):
            advice = _advice([column] if _is_unbounded(column, value) else [])
            changes.append((f"{column.name} = {_shown(column, value)}{advice}", {column.name: value}))
    changes += [(f"{name} null", {name: None}) for name in nullable]
    changes.append(("every nullable column null", dict.fromkeys(nullable)))
    numeric = [column for column in schema.columns if column.is_numeric or column.is_temporal]
    for side, place in (("lowest", 0), ("highest", -1)):
        ends = {column.name: _special(column)[place] for column in numeric}
        free = [column for column in numeric if _is_unbounded(column, ends[column.name])]
        changes.append((f"all numbers at their {side}{_advice(free)}", ends))
    return changes


def _is_unbounded(column: Column, value: Any) -> bool:
    """Returns whether a value is in the rows only because the column declares no bound on that side."""
    if not column.is_numeric or abs(value) != (EXACT_INTEGER if column.type == "integer" else LARGEST):
        return False
    return (column.minimum if value < 0 else column.maximum) is None


def _advice(unbounded: list[Column]) -> str:
    names = first_of([column.name for column in unbounded], 3)
    return f": declare bounds (minimum, maximum) of {names}" if names else ""


def _changed(schema: DatasetSchema, base: pd.DataFrame, changes: list[dict[str, Any]]) -> dict[str, Texts]:
    """Returns the rows of `base`, each with its change applied."""
    columns = {name: base[name].to_numpy(dtype=object, copy=True) for name in schema.names}
    for row, change in enumerate(changes):
        for name, value in change.items():
            columns[name][row] = value
    return columns


def _jittered(schema: DatasetSchema, base: pd.DataFrame, rng: np.random.Generator) -> dict[str, Texts]:
    """Returns training rows with each number moved to the next double or single, or rounded to single."""
    columns = {name: base[name].to_numpy(dtype=object, copy=True) for name in schema.names}
    ways = rng.integers(0, 5, len(base))
    for column in schema.columns:
        if column.type != "number":
            continue
        values = columns[column.name].astype(np.float64)
        moved = np.choose(ways, edges.neighbours(values))
        least, most = edges.bounds(column)
        inside = (moved >= least) & (moved <= most)  # False for a null, which stays
        columns[column.name][inside] = moved[inside]
    return columns


def _altered(schema: DatasetSchema, base: pd.DataFrame, rng: np.random.Generator) -> dict[str, Texts]:
    """Returns training rows with texts in other spellings, cut, mixed, without digits, or unknown."""
    columns = {name: base[name].to_numpy(dtype=object, copy=True) for name in schema.names}
    for column in schema.columns:
        if column.type != "text":
            continue
        values = columns[column.name]
        words = [word for text in values if text for word in text.split()] or ["x"]
        for row, text in enumerate(values):
            altered = _alteration(text or "", words, row, rng)
            canonical = column.canonical_text(altered[: column.max_length])
            values[row] = canonical or (None if column.nullable else text)
    return columns


def _alteration(text: str, words: list[str], turn: int, rng: np.random.Generator) -> str:
    first, *rest = text.split() or ["x"]
    other = str(rng.choice(words))
    ways = (
        text.upper(), text.title(), f" {text}  ", "  ".join([first, *rest]), " ".join([*rest[::-1], first]),
        first, " ".join(rest), f"{first} {other}", f"{other} {first} {other}", text[: len(text) // 2],
        "".join(letter for letter in text if not letter.isdigit()), f"{rng.integers(0, 5000)} {other}",
        *UNKNOWN_TEXTS,
    )  # fmt: skip
    return ways[turn % len(ways)]


def _special(column: Column) -> list[Any]:
    """Returns a column's special values: levels, bounds, ends of the training range; numbers in order."""
    if column.type == "boolean":
        return [0.0, 1.0]
    if column.type == "text":
        joined = " ".join(HARD_TEXTS)
        longest = (joined * (column.max_length // len(joined) + 1))[: column.max_length]
        canonical = [column.canonical_text(text[: column.max_length]) for text in (*HARD_TEXTS, longest)]
        return [text for text in dict.fromkeys(canonical) if text]
    if column.type == "category":
        unknown = [] if column.levels else [column.canonical_text(text) for text in UNKNOWN_TEXTS]
        return [*levels_of(column), *(text for text in unknown if text)]
    if column.is_temporal:
        return _special_moments(column)
    widest = float(EXACT_INTEGER) if column.type == "integer" else LARGEST
    least, most = column.limits
    low, high = -widest if least is None else least, widest if most is None else most
    seen = [] if column.seen is None else [column.seen.minimum, column.seen.maximum]
    inside = [value for value in (0.0, *seen) if value is not None and low <= value <= high]
    return sorted({float(value) for value in (low, high, *inside)})


def _special_moments(column: Column) -> list[float]:
    """Returns the codes of a column's bounds, of its training range's ends, of ends of months and years."""
    kind = column.moment_type
    low, high = edges.bounds(column)
    ends = [LOWEST[kind], HIGHEST[kind]]
    ends += [canonical(f"{day}{time}", kind) for day in SPECIAL_DAYS for time in SPECIAL_TIMES[kind]]
    seen = [] if column.seen is None else [column.seen.minimum, column.seen.maximum]
    limits = [each for each in (*column.limits, *seen) if each is not None]
    codes = [*limits, *(code(text, kind) for text in ends)]
    return sorted({each for each in codes if low <= each <= high})


def _random(
    schema: DatasetSchema, train: pd.DataFrame, count: int, rng: np.random.Generator
) -> dict[str, Texts]:
    """Returns `count` values per column: half of them training rows, half drawn for each column by itself."""
    half = count // 2
    together = _resampled(train, half, rng)
    columns = {}
    for column in schema.columns:
        # Selects rows before the conversion to objects, which would otherwise convert every cell.
        rows = rng.integers(0, len(train), count - half)
        apart = train[column.name].iloc[rows].to_numpy(dtype=object)
        if column.is_numeric or column.is_temporal:
            apart = np.where(rng.random(len(apart)) < 0.7, _uniform(column, len(apart), rng), apart)
        elif column.type == "category" and not column.levels:
            apart = np.where(rng.random(len(apart)) < 0.05, UNKNOWN_TEXTS[0], apart)
        values = np.concatenate([together[column.name].to_numpy(dtype=object), apart])
        if column.nullable:
            values[rng.random(len(values)) < NULL_SHARE] = None
        columns[column.name] = values
    return columns


def _uniform(column: Column, count: int, rng: np.random.Generator) -> Texts:
    """Returns numbers in the training range and a tenth beyond it, within the bounds."""
    seen = column.seen
    low, high = (0.0, 1.0) if seen is None or seen.minimum is None else (seen.minimum, seen.maximum or 0.0)
    beyond = 0.1 * (high - low)
    values = np.clip(rng.uniform(low - beyond, high + beyond, count), *edges.bounds(column))
    return (np.round(values) if column.type in ("integer", "date") else values).astype(object)


def _resampled(train: pd.DataFrame, count: int, rng: np.random.Generator) -> pd.DataFrame:
    return train.iloc[rng.integers(0, len(train), count)]


def _typed(column: Column, values: Texts) -> Any:
    """Returns values with the type that `vigia_ml.fitting.frames` gives the column."""
    if column.is_temporal:
        return pd.Series(moment_arrays.of_codes(values.astype(np.float64), column.moment_type))
    is_text = column.type in ("category", "text")
    return pd.Series(values, dtype=object) if is_text else pd.Series(values.astype(np.float64))


def _shown(column: Column, value: Any) -> str:
    if column.is_temporal:
        return str(column.shown(value))
    return repr(value[:60]) if isinstance(value, str) else f"{value:g}"
