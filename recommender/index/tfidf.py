"""A catalogue to one block of tf-idf for each field, by scikit-learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer, TfidfVectorizer
from sklearn.preprocessing import normalize

from recommender.index import tokenizer
from recommender.index.catalogue_snapshot import Catalogue
from recommender.index.config import Field
from recommender.index.sparse_matrix import on_grid
from recommender.index.vocabulary import language_for, languages


@dataclass(frozen=True)
class Block:
    """One field of every movie.

    Parameters
    ----------
    matrix : CSR float64 (n, terms), rows of length 1 or empty. terms : sorted; empty for ``together``.
    idf : (terms,) float64.
    """

    matrix: Any
    terms: list[str]
    idf: npt.NDArray[np.float64]


def languages_of(catalogue: Catalogue, fields: Iterable[Field]) -> list[str]:
    """The language each movie's title and description are in (see `tokenizer.language_of`)."""
    known = languages(fields)
    declared = catalogue.texts("language")
    if len(known) < 2:
        return list(declared)
    return [
        tokenizer.language_of(tokenizer.words(f"{title} {description}"), language, known)
        for title, description, language in zip(
            catalogue.texts("title"), catalogue.texts("description"), declared, strict=True
        )
    ]


def most_common(found: Iterable[str]) -> str:
    """What most texts are in; empty for no texts."""
    return next((language for language, _ in Counter(found).most_common(1)), "")


def of_field(catalogue: Catalogue, field: Field, languages: list[str]) -> Block:
    """The block of a field of words or labels. languages : what `languages_of` gave."""
    vectorizer = TfidfVectorizer(
        analyzer=_as_it_is,
        min_df=field.min_df,
        max_df=field.most(len(catalogue)),
        sublinear_tf=field.sublinear_tf,
    )
    try:
        matrix = vectorizer.fit_transform(_said(catalogue, field, languages))
    except ValueError:  # how scikit-learn says that there is no term at all
        return _nothing(len(catalogue))
    return Block(matrix, vectorizer.get_feature_names_out().tolist(), vectorizer.idf_)


def of_users(liked: Any, field: Field) -> Block:
    """The block of ``together``. liked : CSR (n, users), how much each liked the movie; 0: did not."""
    enough = np.bincount(liked.indices, minlength=liked.shape[1]) >= field.min_df
    if not enough.any():
        return _nothing(liked.shape[0])
    transformer = TfidfTransformer(sublinear_tf=False)
    matrix = transformer.fit_transform(liked[:, enough].astype(np.float64))
    return Block(matrix, [], transformer.idf_)


def rows(blocks: Mapping[str, Block], weights: Mapping[str, float]) -> Any:
    """The blocks side by side, each times its weight, as rows of length 1: CSR float32 on the grid.

    A movie is compared by the fields it has: the length is that of the whole row.
    """
    weighted = [block.matrix * weights[name] for name, block in blocks.items()]
    whole = normalize(sparse.hstack(weighted, format="csr"), copy=False)
    whole.data = on_grid(whole.data).astype(np.float32)
    whole.eliminate_zeros()
    whole.sort_indices()
    return whole


def alone(block: Block, begin: int, end: int) -> Any:
    """The block as rows of an index where its columns are [begin, end): CSR float32 (n, end) on the grid."""
    matrix = block.matrix.tocsr()
    values = on_grid(matrix.data).astype(np.float32)
    columns = matrix.indices.astype(np.int32) + np.int32(begin)
    found = sparse.csr_matrix((values, columns, matrix.indptr), (matrix.shape[0], end))
    found.sort_indices()
    return found


def without(rows: Any, left_out: npt.NDArray[np.bool_]) -> Any:
    """The rows with those of (n,) `left_out` emptied."""
    rows.data[np.repeat(left_out, np.diff(rows.indptr))] = 0.0
    rows.eliminate_zeros()
    return rows


def has_terms(blocks: Mapping[str, Block], names: Iterable[str]) -> npt.NDArray[np.bool_]:
    """(n,) whether a movie has a term of one of these fields."""
    n = next(iter(blocks.values())).matrix.shape[0]
    found = np.zeros(n, np.bool_)
    for name in names:
        found |= np.diff(blocks[name].matrix.indptr) > 0
    return found


def _said(catalogue: Catalogue, field: Field, languages: list[str]) -> Iterator[list[str]]:
    if field.kind == "labels":
        return (tokenizer.labels(items) for items in catalogue.lists(field.name))
    return (
        tokenizer.without_stop_words(tokenizer.words(each), language_for(field, spoken))
        for each, spoken in zip(catalogue.texts(field.name), languages, strict=True)
    )


def _nothing(n: int) -> Block:
    return Block(sparse.csr_matrix((n, 0)), [], np.zeros(0))


def _as_it_is(found: list[str]) -> list[str]:
    return found
