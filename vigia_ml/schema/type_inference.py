"""Infers the declaration of a CSV column from its cells. No Django and no numpy here.

Each inference comes with a remark, because an unreported guess hides errors.
"""

from __future__ import annotations

import math
import re
import shlex
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from vigia_ml.schema import moments
from vigia_ml.schema.column_stats import ColumnStats
from vigia_ml.schema.columns import LONGEST_NAME, TRUE_WORDS, Column, ColumnType, Normalisation, Value
from vigia_ml.schema.date_forms import DateForm
from vigia_ml.schema.faults import counted
from vigia_ml.schema.numerals import PARENTHESES

LISTED_LEVELS: Final = 50  # people do not read a longer list
ROWS_PER_LEVEL: Final = 4  # with fewer rows, the file may not show all levels
FEW_VALUES: Final = 10
OUTLYING: Final = -9  # this or less is not a count or an amount where no other number is negative
LONGEST_CATEGORY: Final = 100
MADE_UP_TEXT: Final = "a few words"


@dataclass(frozen=True, slots=True)
class Guess:
    """A proposed declaration of a column, with remarks on it."""

    column: Column
    remarks: tuple[str, ...]


def guess_column(
    tally: ColumnStats, sample: Sequence[str], name: str, aliases: tuple[str, ...] = ()
) -> Guess:
    """Proposes the declaration of one feature.

    Parameters
    ----------
    sample : cells of the column from the whole file, for the example.
    name : canonical name. aliases : other names, such as the name in the header.
    """
    form = tally.date_form
    if isinstance(form, DateForm):
        return _with_blanks(_dates(tally, form, name, aliases), tally)
    kind, remarks = _guess_type(tally)
    is_number = kind in ("integer", "number")
    column = Column(
        name,
        kind,
        nullable=bool(tally.blanks),
        aliases=aliases,
        missing=tuple(sorted(tally.missing)),
        signs=tuple(sorted(tally.signs)) if is_number else (),
    )
    if kind == "boolean":
        yes = sum(times for text, times in tally.counts.items() if text.lower() in TRUE_WORDS)
        column = replace(column, example=2 * yes > tally.filled)
    elif is_number:
        column = _with_range(column, tally, sample, remarks)
    else:
        column = _with_texts(column, tally, remarks)
    return _with_blanks(Guess(column, tuple(remarks)), tally)


def _with_blanks(guess: Guess, tally: ColumnStats) -> Guess:
    column, remarks = guess.column, list(guess.remarks)
    if tally.missing:
        count = f"{tally.blanks:,} of {tally.rows:,} cells are blank or {_some(column.missing)}"
        remarks.append(f"{count}, which count as missing: the column may be null")
    elif tally.blanks:
        remarks.append(f"{tally.blanks:,} of {tally.rows:,} cells are blank: the column may be null")
    return Guess(column, tuple(remarks))


def _dates(tally: ColumnStats, form: DateForm, name: str, aliases: tuple[str, ...]) -> Guess:
    column = Column(
        name,
        form.kind,
        nullable=bool(tally.blanks),
        aliases=aliases,
        missing=tuple(sorted(tally.missing)),
        format=form.form,
    )
    texts = sorted(str(column.from_text(text)) for text in tally.counts)
    # The first of the middle month: typical, and not the value of a single row.
    example = moments.canonical(f"{texts[len(texts) // 2][:7]}-01", form.kind)
    written = f", written {form.form}" if form.form else ""
    remark = f"{form.kind}s from {texts[0]} to {texts[-1]}{written}; later ones have no training rows"
    return Guess(replace(column, example=example), (remark,))


def null_options(words: Iterable[str]) -> str:
    """Returns the command-line options that declare words for a missing value."""
    # argparse takes a word that begins with a dash for another option.
    return " ".join(f"--null={shlex.quote(word)}" for word in sorted(words))


def _guess_type(tally: ColumnStats) -> tuple[ColumnType, list[str]]:
    if tally.is_flag:
        return "boolean", [f"yes or no, written {_some(sorted(tally.counts))}"]
    if tally.is_numeric:
        span = f"from {tally.minimum:.6g} to {tally.maximum:.6g}"
        if not tally.is_whole:
            return "number", [f"numbers {span}", *_outlying(tally)]
        if set(tally.counts) == {"0", "1"}:
            # Not a boolean: a count that is 0 or 1 so far may become 2, which a boolean would reject. An
            # integer loses nothing: a frame holds both types as 0.0 and 1.0.
            return "integer", ["only 0 and 1: if the column is a flag, make it a boolean"]
        remarks = [f"whole numbers {span}", *_outlying(tally)]
        if tally.distinct <= FEW_VALUES:
            remarks.append(f"only {tally.distinct} different: if they are codes, make the column a category")
        return "integer", remarks
    kind: ColumnType = "category"
    if tally.distinct <= LISTED_LEVELS and tally.distinct * ROWS_PER_LEVEL <= tally.filled:
        finding = f"{tally.distinct} different texts"
    elif tally.distinct_share > 0.5 or tally.longest > LONGEST_CATEGORY:
        kind, finding = "text", f"nearly all cells are different texts, up to {tally.longest:,} characters"
    elif tally.spaced > 0.5 * tally.filled:
        # A model learns about "Maruti 800 VXI" from "Maruti 800 AC" only if it reads the words.
        kind = "text"
        finding = f"{tally.distinct:,} different texts of several words; the model reads the words"
    else:
        finding = f"{tally.distinct:,} different texts, too many to list"
        finding += ": any is accepted, unknown ones get a warning"
    return kind, [finding, *_near_misses(tally)]


def _outlying(tally: ColumnStats) -> list[str]:
    """Returns a remark on one frequent number that lies far from all others, such as -999."""
    if tally.overflowed_at:
        return []
    counts = Counter[float]()
    for text, times in tally.counts.items():
        counts[tally.number(text)] += times
    if len(counts) < FEW_VALUES:
        return []
    lowest, second, *_, last, highest = sorted(counts)
    below = (lowest <= OUTLYING and second >= 0) or second - lowest > highest - second
    above = highest - last > last - lowest
    for is_far, number in ((below, lowest), (above, highest)):
        if is_far and counts[number] >= max(3, tally.filled / 100):
            finding = f"{number:g} in {counts[number]:,} cells lies far from all others"
            return [f"{finding} ({null_options([f'{number:g}'])} if it stands for a missing value)"]
    return []


def _near_misses(tally: ColumnStats) -> list[str]:
    """Returns a remark on notations that keep a column from being numbers, or on words for missing values."""
    numeric = tally.kinds["integer"] + tally.kinds["number"]
    if len(tally.currencies) > 1:
        return [f"numbers with different signs, {_some(tally.currencies)}: write all alike in the CSV"]
    if tally.signs["%"] and numeric == tally.filled:
        return ["numbers with and without '%': write all alike in the CSV"]
    if tally.words:
        cells = counted(tally.words.total(), "cell")
        finding = f"{_some(sorted(tally.words))} in {cells} is kept as a text"
        return [f"{finding} ({null_options(tally.words)} reads it as missing)"]
    if tally.kinds["code"]:
        return ["digits with leading zeros or too many digits: codes rather than numbers"]
    if tally.united >= 0.9 * tally.filled:
        return ["numbers with a unit: split the unit off in the CSV to use them as numbers"]
    if numeric >= 0.5 * tally.filled:
        others = [*tally.odd.get("text", []), *tally.odd.get("date", [])]
        finding = f"numbers except for {tally.filled - numeric:,} cells such as {_some(others)}"
        return [f"{finding}: leave these blank, or declare them as missing ({null_options(others)})"]
    return []


def _with_range(column: Column, tally: ColumnStats, sample: Sequence[str], remarks: list[str]) -> Column:
    # Data that comes close to zero and never passes it has a floor there. Data well above zero (a year, a
    # temperature in summer) shows no floor, and a bound that next month's data breaks is worse than none.
    floor = 0 <= tally.minimum <= 0.05 * tally.maximum
    if floor:
        remarks.append("none below 0: negative numbers are rejected")
    if tally.currencies:
        remarks.append(f"written with {_some(tally.currencies)}, which is removed")
    if tally.signs[PARENTHESES]:
        remarks.append("a number in parentheses is negative")
    example = _typical_number(tally, sample, column.type)
    return replace(column, minimum=0 if floor else None, example=example)


def _typical_number(tally: ColumnStats, sample: Sequence[str], kind: ColumnType) -> Value:
    """Returns the rounded median: typical, and not the value of a single row."""
    numbers = [number for cell in sample if not math.isnan(number := tally.number(cell))]
    middle = statistics.median(numbers) if numbers else tally.minimum
    return round(middle) if kind == "integer" else float(f"{middle:.3g}")


def _with_texts(column: Column, tally: ColumnStats, remarks: list[str]) -> Column:
    normalise = normalisation(tally.counts)
    levels: tuple[str, ...] = ()
    if column.type == "category":
        levels = canonical_levels(tally.counts, normalise)
        if len(levels) > LISTED_LEVELS or tally.distinct * ROWS_PER_LEVEL > tally.filled:
            levels = ()
        else:
            remarks.append("other texts are rejected (delete levels to accept any)")
        if normalise != "strip":
            remarks.append("some differ only in case: case does not count")
    return replace(
        column,
        levels=levels,
        normalise=normalise,
        max_length=room_for(tally.longest if column.type == "category" else 2 * tally.longest),
        example=_typical_text(tally, normalise),
    )


def _typical_text(tally: ColumnStats, normalise: Normalisation) -> str:
    """Returns the most frequent cell; a cell of a single row may be personal data and is not shown."""
    most, times = tally.counts.most_common(1)[0]
    return MADE_UP_TEXT if times == 1 else most.lower() if normalise == "lower" else most


def normalisation(texts: Iterable[str]) -> Normalisation:
    """Returns ``lower`` when some of the texts differ only in case, else ``strip``."""
    distinct = set(texts)
    return "lower" if len({text.lower() for text in distinct}) < len(distinct) else "strip"


def canonical_levels(texts: Iterable[str], normalise: Normalisation) -> tuple[str, ...]:
    """Returns the texts as levels: normalised, distinct, sorted as scikit-learn sorts its classes."""
    rule = Column("any", "category", normalise=normalise)
    return tuple(sorted({rule.canonical_text(text) for text in texts}))


def room_for(longest: int) -> int:
    """Returns a `max_length` for texts of which the longest so far has `longest` characters."""
    return 200 if longest <= 200 else math.ceil(longest / 100) * 100


def _some(texts: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(repr(text[:30]) for text in texts[:most])
    return f"{shown}, …" if len(texts) > most else shown


# -- names -----------------------------------------------------------------------------------------------


def canonical_names(header: Sequence[str]) -> dict[str, str]:
    """Returns header name -> canonical name, all different.

    A name of letters, digits and ``_`` stays unchanged. Any other (``Price (€)``, ``_hidden``, ``2nd``, one
    that is too long) gets a clean canonical name, and becomes its alias.
    """
    taken = set(header)
    names: dict[str, str] = {}
    for position, name in enumerate(header, 1):
        if is_plain(name):
            names[name] = name
            continue
        words = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", name)).strip("_").lower()[:60]
        clean = words if is_plain(words) else f"column_{words}"
        base = clean = clean if is_plain(clean) else f"column_{position}"
        number = 1
        while clean in taken:
            number += 1
            clean = f"{base}_{number}"
        taken.add(clean)
        names[name] = clean
    return names


def is_plain(name: str) -> bool:
    """Returns whether a header's name can be declared unchanged. Python keywords can: names are strings."""
    return name.isidentifier() and not name.startswith("_") and len(name) <= LONGEST_NAME
