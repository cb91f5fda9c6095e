"""Tokens and n-grams of a text, as `sklearn.feature_extraction.text` makes them. No scikit-learn here.

`is_linear` judges token patterns of compiled models, which come from clients and run in the web process.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Final

LONGEST_REPEAT: Final = 20
LONGEST_PATTERN: Final = 200
PIECE: Final = 128
"""Characters of a text that are decomposed at once."""

# A pattern is a sequence of single characters of which the last one may repeat. Between word boundaries
# (`\b`), or without a boundary after the repeat, a search is linear in the text.
_CLASS = r"\[\^?(?:[^\\\[\]&|~^-]|\\[wWdDsS'.-]|[A-Za-z0-9À-ÿ]-[A-Za-z0-9À-ÿ])+\]"
_ATOM = rf"(?:\\[wdS]|{_CLASS})"
_REPEAT = r"(?:\+|\{(?P<least>\d{1,2})(?P<range>,(?P<most>\d{0,2}))?\})"
_PATTERN = re.compile(
    rf"(?:\(\?u\))?(?P<begin>\\b)?(?P<group>\()?(?P<atoms>{_ATOM}{{1,20}}){_REPEAT}?(?(group)\))(?P<end>\\b)?"
)
_SPACES = re.compile(r"\s\s+")


def is_linear(pattern: str) -> bool:
    """Returns whether a token pattern is of the accepted form, whose time is linear in the text."""
    match = _PATTERN.fullmatch(pattern) if len(pattern) <= LONGEST_PATTERN else None
    if match is None:
        return False
    least, most = (int(match[name] or 1) for name in ("least", "most"))
    if least < 1 or max(least, most) > LONGEST_REPEAT or (match["most"] and most < least):
        return False
    # Without a boundary before it, the repeat may be tried from each character up to a boundary that fails.
    words = set(re.findall(_ATOM, match["atoms"])) <= {r"\w"} and not match["most"]
    if match["end"] and not (match["begin"] or words):
        return False
    try:
        re.compile(pattern)
    except re.error:  # a range such as z-a
        return False
    return True


def finder(pattern: str) -> Callable[[str], list[str]]:
    """Returns the function from a text to the tokens of a pattern."""
    return re.compile(pattern).findall


def without_accents(text: str, accents: str) -> str:
    """Returns a text without accents: "unicode", or "ascii", which drops all other characters as well."""
    # In pieces, because a long run of marks takes a time quadratic in the run. Pieces differ from the whole
    # in the order of combining marks alone, which are dropped.
    pieces = range(0, len(text), PIECE)
    decomposed = "".join([unicodedata.normalize("NFKD", text[at : at + PIECE]) for at in pieces])
    if accents == "ascii":
        return decomposed.encode("ascii", "ignore").decode("ascii")
    return "".join([each for each in decomposed if not unicodedata.combining(each)])


def word_ngrams(tokens: list[str], low: int, high: int) -> list[str]:
    """Returns all sequences of `low` to `high` tokens, joined by spaces."""
    grams = list(tokens) if low == 1 else []
    for size in range(max(low, 2), min(high, len(tokens)) + 1):
        grams += map(" ".join, zip(*(tokens[start:] for start in range(size)), strict=False))
    return grams


def char_ngrams(text: str, low: int, high: int) -> list[str]:
    """Returns all substrings of `low` to `high` characters, after white space is made single."""
    text = _SPACES.sub(" ", text)
    grams = list(text) if low == 1 else []
    for size in range(max(low, 2), min(high, len(text)) + 1):
        grams += [text[start : start + size] for start in range(len(text) - size + 1)]
    return grams


def ngrams_within_words(text: str, low: int, high: int) -> list[str]:
    """Returns the substrings of each word with a space on both sides; a shorter word counts once."""
    grams: list[str] = []
    for word in text.split():
        padded = f" {word} "
        for size in range(low, high + 1):
            grams += [padded[start : start + size] for start in range(max(1, len(padded) - size + 1))]
            if len(padded) <= size:  # a short word counts once
                break
    return grams
