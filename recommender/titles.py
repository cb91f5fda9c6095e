"""Titles as they are looked for: no case, no accents, no spaces too many."""

from __future__ import annotations

import unicodedata
from typing import Final

LONGEST_KEY: Final = 300
"""Characters. An entry of an index holds 2,704 bytes, and a title may grow when it is taken apart (one
character by up to eighteen); two titles that differ only behind this many are told apart by their movies."""


def key_of(title: str) -> str:
    """What a title is found by: "  El  LABERINTO del Búho" gives "el laberinto del buho".

    Compatibility decomposition (NFKD) without combining marks, casefolded, runs of white space as one space.
    The same for what somebody types, so that a prefix of a title gives a prefix of its key.
    """
    if not title.isascii():
        apart = unicodedata.normalize("NFKD", title)
        title = "".join(character for character in apart if not unicodedata.combining(character))
    return " ".join(title.casefold().split())[:LONGEST_KEY].rstrip()
