"""Titles as they are looked for: without case, accents and superfluous spaces."""

from __future__ import annotations

import unicodedata
from typing import Final

import regex

LONGEST_KEY: Final = 300
"""Characters. An entry of an index holds 2,704 bytes, and a title may grow when it is taken apart (one
character by up to eighteen); two titles that differ only behind this many are told apart by their movies."""

# Accents of the Latin, Greek and Cyrillic scripts, and the points that Hebrew and Arabic are written without,
# are optional in a query. Every other mark is part of its letter: voicing in kana, tones in Thai, vowels in
# Devanagari. The breve of Cyrillic i makes another letter.
_ACCENTS: Final = regex.compile(
    r"(?<![\p{L}--\p{Latin}--\p{Greek}--\p{Cyrillic}]\p{M}*)(?<![\u0418\u0438](?=\u0306))[\u0300-\u036f]"
    r"|[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u0652\u0670]",
    regex.VERSION1,
)
_ARTICLES: Final = r"the|an?|l[aeo]s?|les|el|il|gli|l['\u2019]"
_OTHER_ARTICLES: Final = r"un[ae]?|der|die|das|den|det|het|os?|as?"  # words of other languages, too: "…, Die"
_ARTICLE: Final = regex.compile(
    rf"(?P<rest>.*\S), (?P<article>{_ARTICLES})|(?P<rest>[^,]*[^\s,]), (?P<article>{_OTHER_ARTICLES})",
    regex.IGNORECASE,
)
_YEAR: Final = regex.compile(r"(?P<title>.*\S)\s*\((?P<year>(?:18[7-9]|19\d|20\d)\d)(?:[-\u2013]\d{0,4})?\)")
_OTHER_NAME: Final = regex.compile(r"(?P<title>.*\S) \((?P<other>[^()]+)\)")
_KNOWN_AS: Final = regex.compile(r"a\.?\s*k\.?\s*a\.?\s+", regex.IGNORECASE)


def key_of(title: str) -> str:
    """The key a title is found by: "  El  LABERINTO del Búho" gives "el laberinto del buho".

    Compatibility decomposition (NFKD) without accents, composed again (NFC), casefolded, runs of white space
    as one space. A prefix of a title gives a prefix of its key.
    """
    if not title.isascii():
        plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", title))
        title = unicodedata.normalize("NFC", plain)
    return " ".join(title.casefold().split())[:LONGEST_KEY].rstrip()


def article_first(title: str) -> str:
    """ "Matrix, The" as "The Matrix"; another title as it is."""
    found = _ARTICLE.fullmatch(title)
    if found is None:
        return title
    gap = "" if found["article"].endswith(("'", "\u2019")) else " "
    return f"{found['article']}{gap}{found['rest']}"


def without_year(title: str) -> tuple[str, int | None]:
    """("Heat", 1995) of "Heat (1995)"; (title, None) of one that ends otherwise."""
    found = _YEAR.fullmatch(title)
    return (found["title"], int(found["year"])) if found else (title, None)


def other_name(title: str) -> tuple[str, str]:
    """("Postman, The", "Postino, Il") of "Postman, The (Postino, Il)"; (title, "") without another name.

    Parentheses hold another name when they say so (a.k.a.), when they end in an article, or when they have
    letters beyond ASCII that the title before them has not; "Part 2" belongs to the title.
    """
    found = _OTHER_NAME.fullmatch(title)
    if found is None:
        return title, ""
    other = _KNOWN_AS.sub("", found["other"], count=1)
    is_name = other != found["other"] or article_first(other) != other
    if is_name or (not other.isascii() and found["title"].isascii()):
        return found["title"], other
    return title, ""
