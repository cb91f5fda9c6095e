"""Unicode's normal forms in a time that grows with the text alone.

`unicodedata.normalize` sorts each run of combining marks by insertion. That takes a time quadratic in the
run, under the interpreter's lock, so a name of 50,000 marks in a request would stop a web process for
seconds. So a text with a run that no language has stays as it is. Unicode's stream-safe text format (UAX #15)
has the same limit of 30 marks.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, Literal

LONGEST_RUN: Final = 30
"""Combining marks in a row."""
SHORT: Final = 128
"""Characters of a text whose runs are not searched: its normal form takes 30 microseconds at most."""
# Characters that are no combining marks, but whose decompositions begin with one.
_LIKE_MARKS: Final = "\u0f73\u0f75\u0f81\uff9e\uff9f"
_RUN: Final = re.compile(rb"[^\0]{%d}" % (LONGEST_RUN + 1))


def normal(form: Literal["NFC", "NFKD"], text: str) -> str:
    """Returns a normal form of a text; a text with more than `LONGEST_RUN` marks in a row, unchanged."""
    if text.isascii() or (len(text) > SHORT and _has_long_run(text)):
        return text
    return unicodedata.normalize(form, text)


def _has_long_run(text: str) -> bool:
    for each in _LIKE_MARKS:
        text = text.replace(each, "\u0301")
    # A class of combination is a number up to 240; that of other characters is 0.
    return _RUN.search(bytes(map(unicodedata.combining, text))) is not None
