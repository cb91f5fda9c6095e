"""Text to terms: the same for a catalogue of a million movies and for one question."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import regex

from recommender.index.stop_words import REQUEST_WORDS, STOP_WORDS

# scikit-learn's token_pattern with Unicode's word characters (UAX 29, UTS 18): combining marks belong to the
# word they stand in, and so do joiners within one. `re` ends a word at each mark.
_JOINERS: Final = "\u200c\u200d"
_WORD: Final = regex.compile(rf"[\w\p{{N}}][\w\p{{N}}{_JOINERS}]*[\w\p{{N}}]")
_PIECE: Final = regex.compile(r"\w(?:\S*\w)?")  # "post-apocalyptic" and "d'artagnan", as labels are written

MARGIN: Final = 2
"""By how many stop words a language must lead the declared one before it is believed: "Sin City" holds a
Spanish one by chance."""

LONGEST_LABEL: Final = 4
"""Words of a label that is looked for in free text."""


def lowered(text: str) -> str:
    """The text in lower case and composed (NFC), so that equal letters are equal characters.

    The dot that is left of a Turkish capital I with dot is dropped: "İstanbul" is "istanbul".
    """
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", text.lower().replace("i\u0307", "i"))


def words(text: str) -> list[str]:
    """Lower-case words of two letters or more, in order; scikit-learn's where no mark is combined.

    Scripts without spaces between words (Thai, Khmer, Han, …) give one word for each run of letters.
    """
    found: list[str] = _WORD.findall(lowered(text))
    return found


def label(text: str) -> str:
    """A genre or keyword as a term: lower case, composed, single spaces."""
    return " ".join(lowered(text).split())


def labels(items: Iterable[str]) -> list[str]:
    """Each label once, in order."""
    return [each for each in dict.fromkeys(map(label, items)) if each]


def phrases(text: str, begins_one: Callable[[str], bool] = lambda run: True) -> Iterator[str]:
    """What may be a label in a free text: every run of one to `LONGEST_LABEL` words.

    begins_one : whether some label begins with a run; a longer run than one that begins none is no label.
    """
    pieces = _PIECE.findall(lowered(text))
    for start in range(len(pieces)):
        for end in range(start + 1, min(start + LONGEST_LABEL, len(pieces)) + 1):
            run = " ".join(pieces[start:end])
            if not begins_one(run):
                break
            yield run


def language_of(said: Sequence[str], declared: str, known: Sequence[str]) -> str:
    """The language of `known` whose stop words the text is fullest of.

    A catalogue often names the language of the film, not that of its description, so the text decides; the
    declared one stands where the text is too short to tell (`MARGIN`).
    """
    counts = {each: sum(word in STOP_WORDS[each] for word in said) for each in known}
    best = max(counts, key=counts.__getitem__, default=declared)
    return best if counts.get(best, 0) >= counts.get(declared, 0) + MARGIN else declared


def without_request_words(asked: Sequence[str]) -> list[str]:
    """A request's words without those that only say that a movie is wanted ("a film about …"): they are rare
    in descriptions, and would decide. A request of nothing else keeps them."""
    return [word for word in asked if word not in REQUEST_WORDS] or list(asked)


def without_stop_words(said: Iterable[str], language: str) -> list[str]:
    """The words in order; a language without a list keeps all of them."""
    stop = STOP_WORDS.get(language, frozenset())
    return [word for word in said if word not in stop]
