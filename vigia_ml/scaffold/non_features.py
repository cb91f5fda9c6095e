"""Columns that should not be features: identifiers, constants, dates in unclear forms and time stamps."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from vigia_ml.schema.column_stats import ColumnStats
from vigia_ml.schema.date_forms import DateForm
from vigia_ml.schema.type_inference import null_options

ENOUGH_ROWS: Final = 20  # with fewer, unique or rising values show nothing
NEARLY_UNIQUE: Final = 0.95  # a customer may come twice
EPOCH: Final = (946_684_800, 2_208_988_800)  # 2000 to 2040, in seconds

_ID_NAME = re.compile(r"(?:^|[\W_])(?:id|uuid|guid|key|nr|no|ref|idx|index|rownum|row)(?:$|[\W_])", re.I)
_CAMEL_ID = re.compile(r"[a-z](?:ID|Id)$")
_TIME_NAME = re.compile(r"date|time|stamp|updated|created|modified|(?:^|_)ts$|_at$", re.I)


def why_left_out(tally: ColumnStats, sample: Sequence[str]) -> str:
    """Returns the reason for leaving a column out, or an empty string.

    Parameters
    ----------
    sample : the column's stripped cells from the whole file, in file order.
    """
    form = tally.date_form
    return _constant(tally) or (
        "" if isinstance(form, DateForm) else _moment(tally, form) or _identifier(tally, sample)
    )


def _constant(tally: ColumnStats) -> str:
    if not tally.filled:
        return "every cell is blank"
    if tally.distinct == 1 and not tally.blanks:
        return f"a constant: every cell is {next(iter(tally.counts))[:40]!r}"
    return ""


def _moment(tally: ColumnStats, why_no_form: str) -> str:
    """Returns the reason for leaving out dates that cannot be read, and numbers that stand for times."""
    if tally.kinds["date"] == tally.filled:
        return why_no_form
    if tally.kinds["date"] >= 0.95 * tally.filled:
        others = [*tally.odd.get("text", []), *tally.odd.get("integer", []), *tally.odd.get("number", [])]
        finding = f"a date, such as {tally.odd['date'][0]!r}, but not in cells such as {others[0]!r}"
        return f"{finding} ({null_options(others)} if they stand for a missing value)"
    if not tally.is_numeric or tally.distinct < ENOUGH_ROWS:
        return ""
    for unit, scale in (("seconds", 1), ("milliseconds", 1000)):
        low, high = tally.minimum / scale, tally.maximum / scale
        if EPOCH[0] <= low and high <= EPOCH[1] and (scale == 1000 or _TIME_NAME.search(tally.name)):
            first, last = (datetime.fromtimestamp(value, UTC).date() for value in (low, high))
            return f"a time stamp: {unit} since 1970, from {first} to {last}"
    return ""


def _identifier(tally: ColumnStats, sample: Sequence[str]) -> str:
    if tally.rows < ENOUGH_ROWS or tally.distinct_share < NEARLY_UNIQUE:
        return ""
    if 2 * tally.signs.total() >= tally.filled:
        return ""  # amounts of money
    named = bool(_ID_NAME.search(tally.name) or _CAMEL_ID.search(tally.name))
    if tally.is_whole:
        return _counter(tally, sample, named)
    if tally.is_numeric or tally.kinds["number"] >= 0.5 * tally.filled or tally.united >= 0.5 * tally.filled:
        return ""
    if named or (tally.spaced <= 0.1 * tally.filled and tally.longest <= 64):
        return f"an identifier: {'every' if tally.is_unique else 'nearly every'} row has its own"
    return ""


def _counter(tally: ColumnStats, sample: Sequence[str], named: bool) -> str:
    if not tally.is_unique or tally.blanks:
        return "an identifier by its name, nearly every row has its own" if named else ""
    numbers = [tally.number(cell) for cell in sample]
    if all(a < b for a, b in itertools.pairwise(numbers)):
        return "a counter: it rises from row to row"
    if named:
        return "an identifier: a number of its own in every row"
    if tally.maximum - tally.minimum + 1 == tally.rows:
        return f"an identifier: the numbers from {tally.minimum + 0.0:.0f} to {tally.maximum:.0f}, each once"
    return ""
