"""Known terms and their weights: what turns a movie or a text into a row. numpy only.

It does to one movie what scikit-learn's vectorizers did to the catalogue (see `blocks`): a movie that came
after the index was built gets the row it would have had, by the frequencies of that time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
    bounds : field -> its columns [begin, end), in the order of `settings.fields`. Those of ``together`` come
        last and have no terms: who the users are is not in an index.
    terms : of the other columns, sorted within a field. idf : (columns with a term,) float64.
    language : what most texts are written in.
    """

    settings: Settings
    bounds: Mapping[str, tuple[int, int]]
    terms: Strings
    idf: Array
    language: str

    def of_movie(self, movie: Movie) -> Block:
        """The row of a movie; without ``together``, as nobody has liked it yet."""
        said = {"title": tokenizer.words(movie.title), "description": tokenizer.words(movie.description)}
        spoken = tokenizer.language_of(
            said["title"] + said["description"], movie.language, languages(self.settings.fields)
        )
        items = {"genres": tokenizer.labels(movie.genres), "keywords": tokenizer.labels(movie.keywords)}
        blocks = []
        for field in self._fields():
            if field.kind == "words":
                found = tokenizer.without_stop_words(said[field.name], language_for(field, spoken))
            else:
                found = items[field.name]
            blocks.append((field.weight, self.block(field, found)))
        return combined(blocks)

    def of_text(self, asked: str) -> Block:
        """The row of a free text, which is read as a title, as a description, and for the labels in it."""
        said = tokenizer.words(asked)
        spoken = tokenizer.language_of(said, self.language, languages(self.settings.fields))
        said = tokenizer.without_request_words(said)
        blocks = []
        for field in self._fields():
            if field.kind == "words":
                found = tokenizer.without_stop_words(said, language_for(field, spoken))
            else:
                found = self._labels_in(asked, field)
            blocks.append((field.weight, self.block(field, found)))
        return combined(blocks)

    def _labels_in(self, asked: str, field: Field) -> list[str]:
        """What may be labels of the field in a free text, each once.

        A text of ten thousand letters has twenty thousand runs of words: one by one they would be looked for
        during half a second.
        """

        @cache
        def begins_one(run: str) -> bool:
            return self.terms.has_prefix(run, begin, end)

        begin, end = self.bounds[field.name]
        return list(dict.fromkeys(tokenizer.phrases(asked, begins_one)))

    def genres_of(self, movie: Movie) -> Block:
        """The genres alone, as a row; empty in an index without that field."""
        for field in self._fields():
            if field.name == "genres":
                return combined([(1.0, self.block(field, tokenizer.labels(movie.genres)))])
        return {}

    def block(self, field: Field, found: Iterable[str]) -> Block:
        """Column -> value of one field's terms, of length 1; unknown terms do not count."""
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
        """The field a column belongs to."""
        return next(name for name, (_, end) in self.bounds.items() if column < end)

    def name(self, column: int) -> tuple[str, str]:
        """(field, term) of a column that has a term."""
        return self.field_of(column), self.terms[column]

    def suffices(self, block: Block) -> bool:
        """Whether a row has terms by which a movie can be compared (see `Field.suffices`)."""
        enough = {field.name for field in self.settings.fields if field.suffices}
        return any(self.field_of(column) in enough for column in block)

    def _fields(self) -> Sequence[Field]:
        return [field for field in self.settings.fields if field.kind != "users"]


def languages(fields: Iterable[Field]) -> tuple[str, ...]:
    """Every language whose stop words some field leaves out."""
    return tuple(dict.fromkeys(each for field in fields for each in field.stop_words))


def language_for(field: Field, spoken: str) -> str:
    """Whose stop words the field leaves out of a text in the language `spoken`."""
    if len(field.stop_words) == 1:
        return field.stop_words[0]
    return spoken if spoken in field.stop_words else ""
