"""The vocabulary of an index: its terms and weights convert a movie or a text into a row. numpy only.

It treats one movie as scikit-learn's vectorizers treated the catalogue (see `tfidf`): a movie that was added
after the build gets the row it would have had, by the frequencies at the build.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from recommender.index import tokenizer
from recommender.index.config import Field, Settings
from recommender.index.packed_arrays import Array, Strings
from recommender.index.query import Movie
from recommender.index.sparse_matrix import combined

Block = dict[int, float]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The columns of an index.

    Parameters
    ----------
    bounds : field -> its columns [begin, end), in the order of `settings.fields`. The columns of ``together``
        come last and have no terms: an index does not hold its users.
    terms : terms of the other columns, sorted within a field. idf : (columns with a term,) float64.
    language : language of most texts.
    """

    settings: Settings
    bounds: Mapping[str, tuple[int, int]]
    terms: Strings
    idf: Array
    language: str

    def of_movie(self, movie: Movie) -> Block:
        """Returns the row of a movie, without ``together``, because the index has no likes of the movie."""
        said = {"title": tokenizer.words(movie.title), "description": tokenizer.words(movie.description)}
        spoken = tokenizer.language_of(
            said["title"] + said["description"], movie.language, languages(self.settings.fields)
        )
        items = {"genres": tokenizer.labels(movie.genres), "keywords": tokenizer.labels(movie.keywords)}
        return self._row(spoken, lambda field: (said if field.kind == "words" else items)[field.name])

    def of_text(self, asked: str) -> Block:
        """Returns the row of a free text, which counts as a title, as a description and as a source of
        labels."""
        said = tokenizer.words(asked)
        spoken = tokenizer.language_of(said, self.language, languages(self.settings.fields))
        said = tokenizer.without_request_words(said)
        return self._row(
            spoken, lambda field: said if field.kind == "words" else self._labels_in(asked, field)
        )

    def _row(self, spoken: str, terms_of: Callable[[Field], list[str]]) -> Block:
        """Returns the row of the words and labels of each field; `spoken` is the language of the words."""
        blocks = []
        for field in self.settings.fields:
            if field.kind != "users":
                terms = terms_of(field)
                if field.kind == "words":
                    terms = tokenizer.without_stop_words(terms, language_for(field, spoken))
                blocks.append((field.weight, self.block(field, terms)))
        return combined(blocks)

    def _labels_in(self, asked: str, field: Field) -> list[str]:
        """Returns the possible labels of the field in a free text, each once.

        The cache matters: a text of ten thousand letters has twenty thousand runs of words, and looking each
        up would take half a second.
        """

        @cache
        def begins_one(run: str) -> bool:
            return self.terms.has_prefix(run, begin, end)

        begin, end = self.bounds[field.name]
        return list(dict.fromkeys(tokenizer.phrases(asked, begins_one)))

    def genres_of(self, movie: Movie) -> Block:
        """Returns the row of the genres alone; empty in an index without that field."""
        for field in self.settings.fields:
            if field.name == "genres":
                return combined([(1.0, self.block(field, tokenizer.labels(movie.genres)))])
        return {}

    def block(self, field: Field, found: Iterable[str]) -> Block:
        """Returns column -> value of one field's terms, of length 1; unknown terms do not count."""
        block: Block = {}
        begin, end = self.bounds[field.name]
        for term, times in Counter(found).items():
            column = self.terms.find(term, begin, end)
            if column >= 0:
                counted = 1.0 + math.log(times) if field.sublinear_tf else float(times)
                block[column] = counted * float(self.idf[column])
        length = math.sqrt(math.fsum(value * value for value in block.values()))
        return {column: value / length for column, value in block.items()}

    def field_of(self, column: int) -> str:
        """Returns the field of a column."""
        return next(name for name, (_, end) in self.bounds.items() if column < end)

    def name(self, column: int) -> tuple[str, str]:
        """Returns (field, term) of a column that has a term."""
        return self.field_of(column), self.terms.at(column)

    def suffices(self, block: Block) -> bool:
        """Returns whether a row has terms that allow a comparison (see `Field.suffices`)."""
        enough = {field.name for field in self.settings.fields if field.suffices}
        return any(self.field_of(column) in enough for column in block)


def languages(fields: Iterable[Field]) -> tuple[str, ...]:
    """Returns every language whose stop words some field leaves out."""
    return tuple(dict.fromkeys(each for field in fields for each in field.stop_words))


def language_for(field: Field, spoken: str) -> str:
    """Returns the language whose stop words the field leaves out of a text in the language `spoken`."""
    if len(field.stop_words) == 1:
        return field.stop_words[0]
    return spoken if spoken in field.stop_words else ""
