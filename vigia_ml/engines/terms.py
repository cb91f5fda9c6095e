"""Terms of a text, as scikit-learn's text vectorizers count and weigh them. No scikit-learn or pandas here.

A compiled model stores the settings of a fitted `TfidfVectorizer` or `CountVectorizer` (`Terms`), and what
the pipeline makes of the terms (`TextVector`). The steps are those of `sklearn.feature_extraction.text`, in
its order of additions, so that the numbers are equal to the last bit.

Compiled models come from clients, and a web process executes these settings: `Terms.check` accepts only token
patterns whose time is linear in the text, and bounded tables.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from vigia_ml.engines import tokens
from vigia_ml.schema import Column

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Analyzer = Literal["word", "char", "char_wb"]

MOST_TERMS: Final = 200_000
MOST_LETTERS: Final = 10_000_000  # of all terms or stop words together
MOST_STOP_WORDS: Final = 10_000
MOST_WEIGHTS: Final = 5_000_000  # numbers of one table, 40 MB
MOST_NUMBERS: Final = 4_096
"""Most numbers that a model reads from its texts, per row: 32 KiB."""
MOST_WORK: Final = 2_000_000
"""Most characters of the n-grams of a row's texts; some 0.2 s."""


MOST_SPREAD: Final = 100
"""Most n-grams' characters per character of a text; 1 to 13 letters. A request of `PREDICT_MAX_BYTES` has
millions of characters."""
MOST_EXPANSION: Final = 18
"""Characters into which NFKD decomposes one character (U+FDFA)."""


class BadTerms(ValueError):
    """Raised for settings of a vectorizer that no process executes; the message names the accepted ones."""


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms that a fitted vectorizer finds in a text, and their values.

    vocabulary : the terms, by number (V,). analyzer, pattern, lowercase, ngrams, stop_words, binary,
        sublinear, norm ("" : none) : the vectorizer's settings. accents : "ascii", "unicode" or "".
    idf : (V,), or None where terms are not weighted. missing : the text in place of null; None: null has no
        terms.
    """

    vocabulary: tuple[str, ...]
    analyzer: Analyzer = "word"
    pattern: str = r"(?u)\b\w\w+\b"
    lowercase: bool = True
    accents: str = ""
    ngrams: tuple[int, int] = (1, 1)
    stop_words: frozenset[str] = frozenset()
    binary: bool = False
    sublinear: bool = False
    idf: Floats | None = None
    norm: str = ""
    missing: str | None = None

    def check(self, column: Column) -> None:
        """Raises `BadTerms` unless every process may read texts of `column` with these settings."""
        low, high = self.ngrams
        if self.analyzer not in ("word", "char", "char_wb"):
            raise BadTerms(f"the analyzer {self.analyzer!r} is unknown; known: word, char, char_wb")
        if self.analyzer == "word" and not tokens.is_linear(self.pattern):
            raise BadTerms(
                f"the token pattern {self.pattern[:80]!r} is not supported; supported: single characters "
                r"(\w, \d, \S, [a-z]) of which the last may repeat, such as \b\w\w+\b, \w+, \S+ or [a-z]{2,}"
            )
        if not 1 <= low <= high:
            raise BadTerms(f"n-grams of {low} to {high} are impossible")
        if self._spread > MOST_SPREAD:
            raise BadTerms(
                f"n-grams of {low} to {high} make {self._spread:,} characters of each character of a text, "
                f"more than {MOST_SPREAD}: use shorter n-grams, such as 1 to 13"
            )
        if self.accents not in ("", "ascii", "unicode") or self.norm not in ("", "l1", "l2"):
            raise BadTerms(f"accents {self.accents!r} or norm {self.norm!r} is unknown")
        if self.work(column) > MOST_WORK:
            raise BadTerms(
                f"the n-grams of a text of {column.name} may have {self.work(column):,} characters, more "
                f"than {MOST_WORK:,}: declare a smaller max_length, or use shorter n-grams"
            )
        _bounded("terms", self.vocabulary, MOST_TERMS)
        _bounded("stop words", self.stop_words, MOST_STOP_WORDS)
        if len(set(self.vocabulary)) < len(self.vocabulary):
            raise BadTerms("the vocabulary holds a term twice")
        if self.idf is not None and (
            self.idf.shape != (len(self.vocabulary),) or not np.isfinite(self.idf).all()
        ):
            raise BadTerms("idf must hold a finite number per term")
        if column.type not in ("text", "category"):
            raise BadTerms(f"{column.name} is no text, but {column.type}")

    def work(self, column: Column) -> int:
        """Returns how many characters the n-grams of a text of `column` may have."""
        expansion = MOST_EXPANSION if self.accents else 1
        return column.max_length * self._spread * expansion

    @property
    def _spread(self) -> int:
        """Returns how many characters the n-grams make of a character."""
        low, high = self.ngrams
        return (high - low + 1) * (low + high) // 2

    # -- reading a text ----------------------------------------------------------------------------

    def read(self, text: str | None) -> tuple[Ints, Floats]:
        """Returns the numbers of a text's terms, ascending, and their values, (m,) each."""
        text = self.missing if text is None else text
        counts = Counter(map(self._number, self._analyze(text))) if text else Counter[int | None]()
        counts.pop(None, None)
        at = np.sort(np.array(list(counts), dtype=np.int64))
        if self.binary or not len(at):
            values = np.ones(len(at))
        else:
            values = np.array([counts[each] for each in at.tolist()], dtype=np.float64)
        if self.sublinear:
            values = np.log(values) + 1.0
        if self.idf is not None:
            values *= self.idf[at]
        if self.norm and len(at):
            # Adds from the first to the last, as scikit-learn does.
            squared = self.norm == "l2"
            length = float(np.add.accumulate(values * values if squared else np.abs(values))[-1])
            length = math.sqrt(length) if squared else length
            if length:
                values /= length
        return at, values

    @cached_property
    def _number(self) -> Callable[[str], int | None]:
        return {term: number for number, term in enumerate(self.vocabulary)}.get

    @cached_property
    def _words(self) -> Callable[[str], list[str]]:
        return tokens.finder(self.pattern)

    def _analyze(self, text: str) -> list[str]:
        if self.lowercase:
            text = text.lower()
        if self.accents and not text.isascii():
            text = tokens.without_accents(text, self.accents)
        if self.analyzer == "char":
            return tokens.char_ngrams(text, *self.ngrams)
        if self.analyzer == "char_wb":
            return tokens.ngrams_within_words(text, *self.ngrams)
        words = self._words(text)
        if self.stop_words:
            words = [word for word in words if word not in self.stop_words]
        return words if self.ngrams == (1, 1) else tokens.word_ngrams(words, *self.ngrams)

    # -- storage -----------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        return {
            "vocabulary": list(self.vocabulary),
            "analyzer": self.analyzer,
            "pattern": self.pattern,
            "lowercase": self.lowercase,
            "accents": self.accents,
            "ngrams": list(self.ngrams),
            "stop_words": sorted(self.stop_words),
            "binary": self.binary,
            "sublinear": self.sublinear,
            "idf": None if self.idf is None else _packed(self.idf),
            "norm": self.norm,
            "missing": self.missing,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Terms:
        """Raises `BadTerms` when a setting has another type; `check` judges the values."""
        texts, flags = ("analyzer", "pattern", "accents", "norm"), ("lowercase", "binary", "sublinear")
        ngrams = data["ngrams"]
        typed = (
            all(type(data[name]) is str for name in texts)
            and all(type(data[name]) is bool for name in flags)
            and (data["missing"] is None or type(data["missing"]) is str)
            and (data["idf"] is None or type(data["idf"]) is str)
            and type(ngrams) is list
            and [type(each) for each in ngrams] == [int, int]
            and all(
                type(data[name]) is list and all(type(each) is str for each in data[name])
                for name in ("vocabulary", "stop_words")
            )
        )
        if not typed or len(data) != len(cls.__dataclass_fields__):
            raise BadTerms("the settings of a vectorizer have a wrong type")
        return cls(
            **{
                **data,
                "vocabulary": tuple(data["vocabulary"]),
                "ngrams": (ngrams[0], ngrams[1]),
                "stop_words": frozenset(data["stop_words"]),
                "idf": None if data["idf"] is None else _unpacked(data["idf"]),
            }
        )


@dataclass(frozen=True, eq=False)
class TextVector:
    """Several numbers of a text: values of terms, or sums of them.

    column : position of the text in the schema.
    weights : (V, k); number j is the sum over the terms of value times ``weights[:, j]``. None: the values
        themselves. chosen : (k,) numbers of the terms whose values are wanted, ascending; None: all.
    """

    column: int
    terms: Terms
    weights: Floats | None = None
    chosen: Ints | None = None

    @property
    def width(self) -> int:
        if self.weights is not None:
            return int(self.weights.shape[1])
        return len(self.terms.vocabulary) if self.chosen is None else len(self.chosen)

    def values(self, reading: tuple[Ints, Floats]) -> Floats:
        """Returns the numbers (k,) for a reading."""
        at, values = reading
        if self.weights is not None:
            # Adds term by term, as scipy multiplies a sparse row: trees may split at the last bit of a sum.
            terms = values[:, None] * self.weights[at]
            return np.add.accumulate(terms)[-1] if len(at) else np.zeros(self.width)
        numbers = np.zeros(self.width)
        if self.chosen is None:
            numbers[at] = values
            return numbers
        places = np.minimum(np.searchsorted(self.chosen, at), self.width - 1)
        known = self.chosen[places] == at
        numbers[places[known]] = values[known]
        return numbers

    def check(self, column: Column) -> None:
        """Raises `BadTerms`; see `Terms.check`."""
        self.terms.check(column)
        count = len(self.terms.vocabulary)
        if self.weights is not None and (
            self.weights.ndim != 2
            or len(self.weights) != count
            or self.weights.size > MOST_WEIGHTS
            or not np.isfinite(self.weights).all()
        ):
            raise BadTerms(f"weights must be finite numbers per term, at most {MOST_WEIGHTS:,}")
        if self.chosen is not None and (
            not len(self.chosen)
            or not 0 <= int(self.chosen[0]) <= int(self.chosen[-1]) < count
            or not (np.diff(self.chosen) > 0).all()
        ):
            raise BadTerms("chosen terms must be ascending numbers of the vocabulary")
        if self.chosen is not None and self.weights is not None:
            raise BadTerms("a vector has weights or chosen terms, not both")
        if not 1 <= self.width <= MOST_NUMBERS:
            raise BadTerms(
                f"a text gives {self.width:,} numbers, at most {MOST_NUMBERS:,} are supported: set "
                "max_features, add TruncatedSVD or SelectKBest, or use a linear model"
            )

    def to_json(self, terms: int) -> dict[str, Any]:
        """Returns the vector as JSON; `terms` is the position of its terms in their list."""
        return {
            "kind": "vector",
            "column": self.column,
            "terms": terms,
            "width": self.width,
            "weights": None if self.weights is None else _packed(self.weights),
            "chosen": None if self.chosen is None else self.chosen.tolist(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], terms: Terms) -> TextVector:
        vector = cls(int(data["column"]), terms)
        if data["weights"] is not None:
            weights, count = _unpacked(data["weights"]), len(terms.vocabulary)
            if not count or len(weights) % count:
                raise BadTerms("weights must hold the same count of numbers for each term")
            vector = replace(vector, weights=weights.reshape(count, -1))
        if data["chosen"] is not None:
            return replace(vector, chosen=np.array(data["chosen"], dtype=np.int64).reshape(-1))
        return vector


def _bounded(noun: str, words: tuple[str, ...] | frozenset[str], most: int) -> None:
    if len(words) > most:
        raise BadTerms(f"{len(words):,} {noun} are too many; at most {most:,} are supported")
    if sum(map(len, words)) > MOST_LETTERS:
        raise BadTerms(f"the {noun} have more than {MOST_LETTERS:,} characters")


def _packed(numbers: Floats) -> str:
    return base64.b64encode(np.ascontiguousarray(numbers, dtype="<f8").tobytes()).decode("ascii")


def _unpacked(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f8").astype(np.float64)
