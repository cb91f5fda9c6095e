"""Converts a catalogue into one tf-idf block per field, with scikit-learn."""

from __future__ import annotations

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
    """The tf-idf block of one field of all movies.

    Parameters
    ----------
    matrix : CSR float64 (n, terms), rows of length 1 or empty. terms : sorted; empty for ``together``.
    idf : (terms,) float64.
    """

    matrix: Any
    terms: list[str]
    idf: npt.NDArray[np.float64]


def languages_of(catalogue: Catalogue, fields: Iterable[Field]) -> list[str]:
    """Returns the language of each movie's title and description (see `tokenizer.language_of`)."""
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


def of_field(catalogue: Catalogue, field: Field, languages: list[str]) -> Block:
    """Returns the block of a field of words or labels. languages : the result of `languages_of`."""
    vectorizer = TfidfVectorizer(
        analyzer=list,
        min_df=field.min_df,
        max_df=field.most(len(catalogue)),
        sublinear_tf=field.sublinear_tf,
    )
    try:
        matrix = vectorizer.fit_transform(_said(catalogue, field, languages))
    except ValueError:  # scikit-learn raises this if there is no term at all
        return _nothing(len(catalogue))
    return Block(matrix, vectorizer.get_feature_names_out().tolist(), vectorizer.idf_)


def of_users(liked: Any, field: Field) -> Block:
    """Returns the block of ``together``. liked : CSR (n, users), weight of each user's liking; 0: none."""
    enough = np.bincount(liked.indices, minlength=liked.shape[1]) >= field.min_df
    if not enough.any():
        return _nothing(liked.shape[0])
    transformer = TfidfTransformer(sublinear_tf=False)
    matrix = transformer.fit_transform(liked[:, enough].astype(np.float64))
    return Block(matrix, [], transformer.idf_)


def rows(blocks: Mapping[str, Block], weights: Mapping[str, float]) -> Any:
    """Joins the weighted blocks side by side into rows of length 1: CSR float32 on the grid.

    The length is that of the whole row, so a movie is compared by the fields that it has.
    """
    weighted = [block.matrix * weights[name] for name, block in blocks.items()]
    whole = normalize(sparse.hstack(weighted, format="csr"), copy=False)
    whole.data = on_grid(whole.data).astype(np.float32)
    whole.eliminate_zeros()
    whole.sort_indices()
    return whole


def alone(block: Block, begin: int, end: int) -> Any:
    """Returns one block as rows of an index with columns [begin, end): CSR float32 (n, end) on the grid."""
    matrix = block.matrix.tocsr()
    values = on_grid(matrix.data).astype(np.float32)
    columns = matrix.indices.astype(np.int32) + np.int32(begin)
    found = sparse.csr_matrix((values, columns, matrix.indptr), (matrix.shape[0], end))
    found.sort_indices()
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
