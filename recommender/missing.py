"""Words that data sources write for missing values of a movie."""

from __future__ import annotations

from typing import Final

import regex

_SINGLE: Final = """
    na nan null nil none unknown undefined unspecified uncategorized tba tbd tbc nd sd desconocido
    desconocida ninguno ninguna
"""
_SEVERAL: Final = """
    not available, not known, not specified, not yet available, to be announced, add a plot, sin datos,
    sin descripción, sin género, sin sinopsis, no disponible
"""
_WORDS: Final = {*_SINGLE.split(), *(" ".join(each.split()) for each in _SEVERAL.split(","))}
_NO: Final = regex.compile(
    r"(?:there is )?no (?:genres?|overview|(?:plot )?summary|plot|description|synopsis|keywords?|tags|data)"
    r"(?: (?:is|are))?(?: (?:found|listed|available|given|provided|yet|known|entered|added))*"
)
_DASHES: Final = regex.compile(r"[-\u2010-\u2015\u2212?.*_/]*")
_MARKS: Final = regex.compile(r"[\p{P}<>]+")


def is_missing(text: str) -> bool:
    """Returns whether a description, genre or keyword stands for a missing value: "N/A", "(no genres
    listed)".

    Titles are not checked: there are movies called Null and None.
    """
    if len(text) > 60:
        return False
    plain = text.strip().casefold()
    if plain == "\\n" or _DASHES.fullmatch(plain):  # \N is NULL as MySQL and IMDb write it
        return True
    if "/" in plain or "." in plain:  # n/a, n.d.
        plain = plain.replace("/", "").replace(".", "")
    plain = " ".join(_MARKS.sub(" ", plain).split())
    return plain in _WORDS or _NO.fullmatch(plain) is not None
