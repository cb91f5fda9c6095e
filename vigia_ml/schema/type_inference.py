"""What a CSV column seems to be, read off its cells. No Django here, and no numpy either.

Every guess comes with a remark in words, because a guess nobody is told about is a bug in waiting.
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

from vigia_ml.schema.column_stats import ColumnStats
from vigia_ml.schema.columns import LONGEST_NAME, TRUE_WORDS, Column, ColumnType, Normalisation, Value
from vigia_ml.schema.numerals import PARENTHESES

LISTED_LEVELS: Final = 50  # a longer list is no longer read by people
ROWS_PER_LEVEL: Final = 4  # with fewer, the file has not shown all levels yet
FEW_VALUES: Final = 10
OUTLYING: Final = -9  # and below: no count and no amount, where nothing else is negative
LONGEST_CATEGORY: Final = 100
MADE_UP_TEXT: Final = "a few words"


@dataclass(frozen=True, slots=True)
class Guess:
    """A column as it could be declared, and in words what was guessed about it."""

    column: Column
    remarks: tuple[str, ...]


def guess_column(
    tally: ColumnStats, sample: Sequence[str], name: str, aliases: tuple[str, ...] = ()
) -> Guess:
    """The declaration of one feature.

    Parameters
    ----------
    sample : cells of the column from all over the file, for the example.
    name : canonical name. aliases : other names, such as the header's own.
    """
    kind, remarks = _guess_type(tally)
    column = {
        "boolean": _flag_column,
        "integer": _number_column,
        "number": _number_column,
        "category": _category_column,
        "text": _text_column,
    }[kind](tally, sample, kind, name, aliases, remarks)
    column = replace(column, missing=tuple(sorted(tally.missing)))
    if column.is_numeric and tally.signs:
        column = replace(column, signs=tuple(sorted(tally.signs)))
        remarks += _sign_remarks(tally)
    if tally.missing:
        said = f"{tally.blanks:,} of {tally.rows:,} cells are blank or {_some(column.missing)}"
        remarks.append(f"{said}, which is read as missing: it may be null")
    elif tally.blanks:
        remarks.append(f"{tally.blanks:,} of {tally.rows:,} cells are blank, so it may be null")
    return Guess(column, tuple(remarks))


def null_options(words: Iterable[str]) -> str:
    """The options of the command line that declare words for a missing value."""
    # A word that begins with a dash would be taken for an option of its own.
    return " ".join(f"--null={shlex.quote(word)}" for word in sorted(words))


def _sign_remarks(tally: ColumnStats) -> list[str]:
    found = []
    if tally.currencies:
        found.append(f"written with {_some(tally.currencies)}, which is dropped")
    if tally.signs[PARENTHESES]:
        found.append("a number in parentheses is negative")
    return found


def _guess_type(tally: ColumnStats) -> tuple[ColumnType, list[str]]:
    if tally.is_flag:
        return "boolean", [f"yes or no, written {_some(sorted(tally.counts))}"]
    if tally.is_numeric:
        span = f"from {tally.minimum:.6g} to {tally.maximum:.6g}"
        if not tally.is_whole:
            return "number", [f"numbers {span}", *_outlying(tally)]
        if set(tally.counts) == {"0", "1"}:
            # Not a boolean by itself: a count or a year that is 0 or 1 so far gets its 2 some day, and would
            # be refused then. As an integer nothing is lost: a frame holds both as 0.0 and 1.0.
            return "integer", ["only 0 and 1: if it is a flag, make it a boolean"]
        remarks = [f"whole numbers {span}", *_outlying(tally)]
        if tally.distinct <= FEW_VALUES:
            remarks.append(f"only {tally.distinct} different: if they are codes, make it a category")
        return "integer", remarks
    remarks = _near_misses(tally)
    if tally.distinct <= LISTED_LEVELS and tally.distinct * ROWS_PER_LEVEL <= tally.filled:
        return "category", [f"{tally.distinct} different texts", *remarks]
    if tally.distinct_share > 0.5 or tally.longest > LONGEST_CATEGORY:
        return "text", [f"nearly every cell is another text, up to {tally.longest:,} characters", *remarks]
    if tally.spaced > 0.5 * tally.filled:
        # A model learns nothing about "Maruti 800 VXI" from "Maruti 800 AC" unless it sees the words.
        return "text", [f"{tally.distinct:,} different texts of several words, used by their words", *remarks]
    said = f"{tally.distinct:,} different texts, too many to list: any is accepted, unknown ones are flagged"
    return "category", [said, *remarks]


def _outlying(tally: ColumnStats) -> list[str]:
    """A hint at one number that stands far from all others, again and again, as -999 does."""
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
            said = f"{number:g} in {counts[number]:,} cells lies far from all others"
            return [f"{said} ({null_options([f'{number:g}'])} if it stands for a missing value)"]
    return []


def _near_misses(tally: ColumnStats) -> list[str]:
    """Hints at columns that would be numbers, were it not for how they are written, and at missing values."""
    numeric = tally.kinds["integer"] + tally.kinds["number"]
    if len(tally.currencies) > 1:
        return [f"numbers with different signs, {_some(tally.currencies)}: make them alike in the CSV"]
    if tally.signs["%"] and numeric == tally.filled:
        return ["numbers with and without '%': make them alike in the CSV"]
    if tally.words:
        cells = "1 cell" if tally.words.total() == 1 else f"{tally.words.total():,} cells"
        said = f"{_some(sorted(tally.words))} in {cells} is kept as a text"
        return [f"{said} ({null_options(tally.words)} reads it as missing)"]
    if tally.kinds["code"]:
        return ["digits with leading zeros or too many of them, so codes rather than numbers"]
    if tally.united >= 0.9 * tally.filled:
        return ["numbers with a unit: split the unit off in the CSV to use them as numbers"]
    if numeric >= 0.5 * tally.filled:
        other = _some([*tally.odd.get("text", []), *tally.odd.get("date", [])])
        odd = tally.filled - numeric
        words = null_options([*tally.odd.get("text", []), *tally.odd.get("date", [])])
        said = f"numbers but for {odd:,} cells such as {other}: blank those, a blank is a null, or say so"
        return [f"{said} ({words})"]
    return []


def _flag_column(
    tally: ColumnStats,
    sample: Sequence[str],
    kind: ColumnType,
    name: str,
    aliases: tuple[str, ...],
    remarks: list[str],
) -> Column:
    yes = sum(times for text, times in tally.counts.items() if text.lower() in TRUE_WORDS)
    example = 2 * yes > tally.filled
    return Column(name, kind, nullable=bool(tally.blanks), aliases=aliases, example=example)


def _number_column(
    tally: ColumnStats,
    sample: Sequence[str],
    kind: ColumnType,
    name: str,
    aliases: tuple[str, ...],
    remarks: list[str],
) -> Column:
    # Data that comes close to zero and never passes it has a floor there. Data that stays well above (a year,
    # a temperature in summer) says nothing, and a bound that next month's data breaks is worse than none.
    floor = tally.minimum >= 0 and tally.minimum <= 0.05 * tally.maximum
    if floor:
        remarks.append("none below 0, so less is refused")
    return Column(
        name,
        kind,
        nullable=bool(tally.blanks),
        minimum=0 if floor else None,
        aliases=aliases,
        example=_typical_number(tally, sample, kind),
    )


def _typical_number(tally: ColumnStats, sample: Sequence[str], kind: ColumnType) -> Value:
    """The median, rounded: typical, and nobody's own value."""
    numbers = [number for cell in sample if not math.isnan(number := tally.number(cell))]
    middle = statistics.median(numbers) if numbers else tally.minimum
    return round(middle) if kind == "integer" else float(f"{middle:.3g}")


def _category_column(
    tally: ColumnStats,
    sample: Sequence[str],
    kind: ColumnType,
    name: str,
    aliases: tuple[str, ...],
    remarks: list[str],
) -> Column:
    normalise = normalisation(tally.counts)
    levels = canonical_levels(tally.counts, normalise)
    listed = len(levels) <= LISTED_LEVELS and tally.distinct * ROWS_PER_LEVEL <= tally.filled
    if listed:
        remarks.append("others are refused (delete levels to accept any)")
    if normalise != "strip":
        remarks.append("some differ in case alone, so case does not count")
    return Column(
        name,
        kind,
        nullable=bool(tally.blanks),
        levels=levels if listed else (),
        aliases=aliases,
        normalise=normalise,
        max_length=room_for(tally.longest),
        example=_typical_text(tally, normalise),
    )


def _text_column(
    tally: ColumnStats,
    sample: Sequence[str],
    kind: ColumnType,
    name: str,
    aliases: tuple[str, ...],
    remarks: list[str],
) -> Column:
    normalise = normalisation(tally.counts)
    return Column(
        name,
        kind,
        nullable=bool(tally.blanks),
        aliases=aliases,
        normalise=normalise,
        max_length=room_for(2 * tally.longest),
        example=_typical_text(tally, normalise),
    )


def _typical_text(tally: ColumnStats, normalise: Normalisation) -> str:
    """The most frequent cell; one that stands in a single row may be somebody's, and is not shown."""
    most, times = tally.counts.most_common(1)[0]
    return MADE_UP_TEXT if times == 1 else most.lower() if normalise == "lower" else most


def normalisation(texts: Iterable[str]) -> Normalisation:
    """``lower`` when some of the texts differ in case alone, else ``strip``."""
    found = set(texts)
    return "lower" if len({text.lower() for text in found}) < len(found) else "strip"


def canonical_levels(texts: Iterable[str], normalise: Normalisation) -> tuple[str, ...]:
    """The texts as levels: normalised, once each, sorted as scikit-learn sorts its classes."""
    rule = Column("any", "category", normalise=normalise)
    return tuple(sorted({rule.canonical_text(text) for text in texts}))


def room_for(longest: int) -> int:
    """A limit on the length of texts of which the longest so far has `longest` characters."""
    return 200 if longest <= 200 else math.ceil(longest / 100) * 100


def _some(texts: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(repr(text[:30]) for text in texts[:most])
    return f"{shown}, …" if len(texts) > most else shown


# -- names -----------------------------------------------------------------------------------------------


def canonical_names(header: Sequence[str]) -> dict[str, str]:
    """Header name -> name to declare it under, all different.

    A name of letters, digits and ``_`` stays as it is. Another one (``Price (€)``, ``_hidden``, ``2nd``, one
    too long to declare) gets a clean one, and is to be declared as its alias.
    """
    taken = {unicodedata.normalize("NFC", name) for name in header}
    found: dict[str, str] = {}
    for position, name in enumerate(header, 1):
        if is_plain(name):
            found[name] = name
            continue
        words = re.sub(r"\W+", "_", unicodedata.normalize("NFC", name)).strip("_").lower()[:60]
        clean = words if is_plain(words) else f"column_{words}"
        base = clean = clean if is_plain(clean) else f"column_{position}"
        number = 1
        while clean in taken:
            number += 1
            clean = f"{base}_{number}"
        taken.add(clean)
        found[name] = clean
    return found


def is_plain(name: str) -> bool:
    """Whether a header's name can be declared as it stands. Python's keywords can: names stay strings."""
    if not name.isidentifier() or name.startswith("_") or len(name) > LONGEST_NAME:
        return False
    return unicodedata.is_normalized("NFC", name)
