"""Search keys of titles: without case, accents and superfluous spaces."""

from __future__ import annotations

from typing import Final

import regex

from vigia_ml.schema.unicode_forms import normal

LONGEST_KEY: Final = 300
"""Most characters of a key. An index entry holds 2,704 bytes, and decomposition may turn one character into
up to eighteen; titles that differ only after this length share a key."""

# Accents of the Latin, Greek and Cyrillic scripts, and the points that Hebrew and Arabic texts usually omit,
# are optional in a query. Every other mark is part of its letter: voicing in kana, tones in Thai, vowels in
# Devanagari. The breve of Cyrillic i makes a different letter.
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
    """Returns the search key of a title: "  El  LABERINTO del Búho" gives "el laberinto del buho".

    The key is the compatibility decomposition (NFKD) without accents, composed again (NFC) and casefolded,
    with one space for each run of white space. A prefix of a title gives a prefix of its key.
    """
    if not title.isascii():
        plain = _ACCENTS.sub("", normal("NFKD", title))
        title = normal("NFC", plain)
    return " ".join(title.casefold().split())[:LONGEST_KEY].rstrip()


def article_first(title: str) -> str:
    """Moves a trailing article to the front: "Matrix, The" gives "The Matrix"."""
    match = _ARTICLE.fullmatch(title)
    if match is None:
        return title
    gap = "" if match["article"].endswith(("'", "\u2019")) else " "
    return f"{match['article']}{gap}{match['rest']}"


def without_year(title: str) -> tuple[str, int | None]:
    """Splits a trailing year off: "Heat (1995)" gives ("Heat", 1995), a title without one (title, None)."""
    match = _YEAR.fullmatch(title)
    return (match["title"], int(match["year"])) if match else (title, None)


def other_name(title: str) -> tuple[str, str]:
    """Splits a second name off: "Postman, The (Postino, Il)" gives ("Postman, The", "Postino, Il"), a title
    without one (title, "").

    Parentheses hold a second name if they begin with "a.k.a.", if they end in an article, or if they have
    letters beyond ASCII and the title before them has none; "Part 2" belongs to the title.
    """
    match = _OTHER_NAME.fullmatch(title)
    if match is None:
        return title, ""
    other = _KNOWN_AS.sub("", match["other"], count=1)
    is_name = other != match["other"] or article_first(other) != other
    if is_name or (not other.isascii() and match["title"].isascii()):
        return match["title"], other
    return title, ""
