"""The tokenizer: converts text into terms, in the same way for a catalogue and for a question."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import regex

from recommender.index.stop_words import REQUEST_WORDS, STOP_WORDS
from vigia_ml.schema.unicode_forms import normal

# The pattern is scikit-learn's token_pattern with Unicode's word characters (UAX 29, UTS 18): combining marks
# and joiners belong to the word around them. `re` ends a word at each mark.
_JOINERS: Final = "\u200c\u200d"
_WORD: Final = regex.compile(rf"[\w\p{{N}}][\w\p{{N}}{_JOINERS}]*[\w\p{{N}}]")
_PIECE: Final = regex.compile(r"\w(?:\S*\w)?")  # pieces of labels: "post-apocalyptic", "d'artagnan"

MARGIN: Final = 2
"""Lead in stop words over the declared language that makes another language count: "Sin City" holds a Spanish
stop word by chance."""

LONGEST_LABEL: Final = 4
"""Most words of a label that the tokenizer looks for in free text."""


def lowered(text: str) -> str:
    """Returns the text in lower case and composed (NFC), so that equal letters are equal characters.

    It drops the dot that remains of a Turkish capital I with dot: "İstanbul" gives "istanbul".
    """
    if text.isascii():
        return text.lower()
    return normal("NFC", text.lower().replace("i\u0307", "i"))


def words(text: str) -> list[str]:
    """Returns the lower-case words of two letters or more, in order; without combining marks, the same as
    scikit-learn.

    Scripts without spaces between words (Thai, Khmer, Han, …) give one word for each run of letters.
    """
    found: list[str] = _WORD.findall(lowered(text))
    return found


def label(text: str) -> str:
    """Returns a genre or keyword as a term: lower case, composed, single spaces."""
    return " ".join(lowered(text).split())


def labels(items: Iterable[str]) -> list[str]:
    """Returns each label once, in order."""
    return [each for each in dict.fromkeys(map(label, items)) if each]


def phrases(text: str, begins_one: Callable[[str], bool] = lambda run: True) -> Iterator[str]:
    """Yields every possible label of a free text: every run of one to `LONGEST_LABEL` words.

    begins_one : whether some label begins with a run; if none does, no longer run can be a label.
    """
    pieces = _PIECE.findall(lowered(text))
    for start in range(len(pieces)):
        for end in range(start + 1, min(start + LONGEST_LABEL, len(pieces)) + 1):
            run = " ".join(pieces[start:end])
            if not begins_one(run):
                break
            yield run


def language_of(said: Sequence[str], declared: str, known: Sequence[str]) -> str:
    """Returns the language of `known` with the most stop words in the text.

    A catalogue often declares the language of the film, not that of its description, so the text decides; the
    declared language applies if the text is too short for a decision (`MARGIN`).
    """
    counts = {each: sum(word in STOP_WORDS[each] for word in said) for each in known}
    best = max(counts, key=counts.__getitem__, default=declared)
    return best if counts.get(best, 0) >= counts.get(declared, 0) + MARGIN else declared


def without_request_words(asked: Sequence[str]) -> list[str]:
    """Returns a request's words without those that only ask for a movie ("a film about …"): they are rare in
    descriptions and would dominate the result. A request of such words alone keeps them."""
    return [word for word in asked if word not in REQUEST_WORDS] or list(asked)


def without_stop_words(said: Iterable[str], language: str) -> list[str]:
    """Returns the words in order without stop words; for a language without a list, all words."""
    stop = STOP_WORDS.get(language, frozenset())
    return [word for word in said if word not in stop]
