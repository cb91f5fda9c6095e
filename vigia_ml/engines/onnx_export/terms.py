"""Converts scikit-learn's text vectorizers, and the steps after them.

A vocabulary has thousands of terms and a text some hundred of them. So the terms' values are not written
where a linear step follows: the reader of texts returns the step's sums (see `vigia_ml.engines.terms`). Other
steps get the values of at most `MOST_NUMBERS` terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer

from vigia_ml.engines.onnx_export.graph import WIDEST, Frame, Graph, Lazy, Tensor
from vigia_ml.engines.terms import MOST_NUMBERS, BadTerms, Terms, TextVector

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LARGEST_SUM: Final = 1e300  # a larger sum may come from an infinite input, which scikit-learn rejects


@dataclass(frozen=True)
class TextFrame:
    """One column of texts with a text in place of null."""

    frame: Frame
    missing: str | None


@dataclass(frozen=True)
class Bag:
    """Values of a text's terms.

    column : the text's position in the schema. most : bound on the values. chosen : (k,) numbers of the
    terms. scale : (k,) factors of their values.
    """

    terms: Terms
    column: int
    most: float
    chosen: Ints
    scale: Floats

    @property
    def width(self) -> int:
        return len(self.chosen)

    @property
    def is_counts(self) -> bool:
        """Whether the values are the counts of all terms, unweighted."""
        whole = self.width == len(self.terms.vocabulary) and bool((self.scale == 1.0).all())
        return whole and self.terms.idf is None and not (self.terms.norm or self.terms.sublinear)

    def times(self, weights: Floats, graph: Graph) -> Tensor:
        """Writes ``values · weights``, (n, k) of weights (width, k)."""
        scaled = weights * self.scale[:, None]
        table = np.zeros((len(self.terms.vocabulary), weights.shape[1]))
        table[self.chosen] = scaled
        return graph.vector(
            TextVector(self.column, self.terms, weights=table),
            self.most * float(np.abs(scaled).sum(axis=0).max()),
        )

    def values(self, graph: Graph) -> Tensor:
        whole = self.width == len(self.terms.vocabulary)
        chosen = None if whole else self.chosen
        found = graph.vector(TextVector(self.column, self.terms, chosen=chosen), self.most)
        if (self.scale == 1.0).all():
            return found
        name = graph.node("Mul", found.name, graph.constant(self.scale))
        return Tensor(name, self.width, self.most * float(np.abs(self.scale).max()))


@dataclass(frozen=True)
class Wide(Lazy):
    """Columns of numbers, some of which are terms of texts."""

    parts: tuple[Tensor | Bag, ...]

    @property
    def width(self) -> int:
        return sum(part.width for part in self.parts)

    def dense(self, step: Any, graph: Graph) -> Tensor:
        terms = sum(part.width for part in self.parts if isinstance(part, Bag))
        if terms > MOST_NUMBERS:
            raise graph.cannot(
                step,
                f"takes {terms:,} terms of texts, and at most {MOST_NUMBERS:,} are supported: set the "
                "vectorizer's max_features, add TruncatedSVD or SelectKBest, or use a linear model",
            )
        return graph.concat([part.values(graph) if isinstance(part, Bag) else part for part in self.parts])

    def times(self, weights: Floats, graph: Graph) -> Tensor:
        """Writes ``columns · weights``, (n, k) of weights (width, k)."""
        terms = [
            part.times(own, graph) if isinstance(part, Bag) else product(part, own, graph)
            for part, own in zip(self.parts, self._split(weights), strict=True)
        ]
        total = terms[0].name
        for each in terms[1:]:
            total = graph.node("Add", total, each.name)
        return Tensor(total, weights.shape[1], sum(each.limit for each in terms))

    def scaled(self, factors: Floats, graph: Graph) -> Wide:
        return Wide(
            tuple(
                replace(part, scale=part.scale * own)
                if isinstance(part, Bag)
                else Tensor(
                    graph.node("Mul", part.name, graph.constant(own)),
                    part.width,
                    part.limit * float(np.abs(own).max()),
                )
                for part, own in zip(self.parts, self._split(factors), strict=True)
            )
        )

    def present(self, step: Any, graph: Graph) -> Wide:
        """Returns whether each term is in the text, as 1 or 0, for a step that compares its value with 0."""
        parts: list[Tensor | Bag] = []
        for part in self.parts:
            if not isinstance(part, Bag) or (part.scale <= 0).any() or _lowest(part.terms) <= 0:
                raise graph.cannot(step, "compares other numbers than values of terms with 0")
            terms = replace(part.terms, binary=True, sublinear=False, idf=None, norm="")
            parts.append(replace(part, terms=terms, most=1.0, scale=np.ones(part.width)))
        return Wide(tuple(parts))

    def picked(self, kept: NDArray[np.bool_], graph: Graph) -> Wide:
        """Returns the columns where the mask (width,) is true."""
        parts: list[Tensor | Bag] = []
        for part, own in zip(self.parts, self._split(kept), strict=True):
            places = np.flatnonzero(own)
            if not len(places):
                continue
            if isinstance(part, Bag):
                parts.append(replace(part, chosen=part.chosen[places], scale=part.scale[places]))
            else:
                parts.append(Tensor(graph.gather(part.name, places.tolist()), len(places), part.limit))
        return Wide(tuple(parts))

    def _split(self, rows: NDArray[Any]) -> list[NDArray[Any]]:
        return np.split(rows, np.cumsum([part.width for part in self.parts])[:-1])


def joined(parts: Sequence[Tensor | Wide], graph: Graph) -> Tensor | Wide:
    """Joins tensors and terms along the columns."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if len(tensors) == len(parts):
        return graph.concat(tensors)
    flat: list[Tensor | Bag] = []
    for part in parts:
        flat += part.parts if isinstance(part, Wide) else [part] if part.width else []
    return Wide(tuple(flat))


def product(data: Tensor, weights: Floats, graph: Graph) -> Tensor:
    """Writes ``data · weights``; rejects infinities as scikit-learn does."""
    heaviest = float(np.abs(weights).sum(axis=0).max())
    limit = data.limit * heaviest if heaviest else np.inf
    if limit > LARGEST_SUM or np.isnan(limit):
        graph.refuse_beyond(data, WIDEST)
    return Tensor(graph.node("MatMul", data.name, graph.constant(weights)), weights.shape[1], limit)


# -- the steps -----------------------------------------------------------------------------------------


def vectorize(step: CountVectorizer | TfidfVectorizer, data: object, graph: Graph) -> Wide:
    """Returns the terms of a fitted vectorizer."""
    missing = data.missing if isinstance(data, TextFrame) else None
    frame = data.frame if isinstance(data, TextFrame) else data
    if not isinstance(frame, Frame) or len(frame.columns) != 1:
        raise graph.cannot(
            step, 'takes texts otherwise than from one column, as in ("text", vectorizer, "column")'
        )
    column, place = frame.columns[0], frame.places[0]
    terms = replace(_terms(step, graph), missing=missing)
    try:
        terms.check(column)
    except BadTerms as error:
        raise graph.cannot(step, f"cannot be compiled: {error}") from None
    if column.nullable and missing is None:
        graph.refuse(graph.node("IsNaN", graph.gather(frame.matrix, [place])))
    count = len(terms.vocabulary)
    most = 1.0 if terms.norm else float(column.max_length + 2) * _highest(terms)
    return Wide((Bag(terms, place, most, np.arange(count), np.ones(count)),))


def _highest(terms: Terms) -> float:
    """Returns a bound on the value of a term per character of the text."""
    low, high = terms.ngrams
    weight = 1.0 if terms.idf is None else float(np.abs(terms.idf).max(initial=0.0))
    # Normalisation (NFKD) turns one character into up to 18.
    return 18.0 * (high - low + 1) * weight


def _lowest(terms: Terms) -> float:
    """Returns the least weight of a term."""
    return 1.0 if terms.idf is None else float(terms.idf.min(initial=np.inf))


def _terms(step: CountVectorizer | TfidfVectorizer, graph: Graph) -> Terms:
    for name in ("preprocessor", "tokenizer", "analyzer", "strip_accents"):
        if callable(getattr(step, name)):
            raise graph.cannot(
                step,
                f"calls its own function ({name}=): the compiler supports lowercase, strip_accents, "
                "token_pattern, ngram_range and stop_words",
            )
    if step.input != "content":
        raise graph.cannot(step, f"reads its texts from elsewhere (input={step.input!r})")
    is_tfidf = isinstance(step, TfidfVectorizer)
    if not (step.dtype == np.float64 or (not is_tfidf and np.dtype(step.dtype) in (np.int64, np.int32))):
        raise graph.cannot(step, f"counts in {np.dtype(step.dtype).name}: leave out dtype=")
    order = sorted(step.vocabulary_.items(), key=lambda item: item[1])
    words = step.analyzer == "word"
    terms = Terms(
        vocabulary=tuple(str(term) for term, _ in order),
        analyzer=step.analyzer,
        pattern=step.token_pattern if words else "",
        lowercase=bool(step.lowercase),
        accents=step.strip_accents or "",
        ngrams=(int(step.ngram_range[0]), int(step.ngram_range[1])),
        stop_words=frozenset(step.get_stop_words() or ()) if words else frozenset(),
        binary=bool(step.binary),
    )
    return _weighted(terms, step._tfidf) if is_tfidf else terms


def _weighted(terms: Terms, step: TfidfTransformer) -> Terms:
    idf = np.asarray(step.idf_, dtype=np.float64).ravel() if hasattr(step, "idf_") else None
    return replace(terms, sublinear=bool(step.sublinear_tf), idf=idf, norm=step.norm or "")


def weigh(step: TfidfTransformer, data: object, graph: Graph) -> Wide:
    """Returns the terms of a `CountVectorizer`, weighted by a fitted `TfidfTransformer`."""
    bag = data.parts[0] if isinstance(data, Wide) and len(data.parts) == 1 else None
    if not isinstance(bag, Bag) or not bag.is_counts:
        raise graph.cannot(step, "takes other numbers than the counts of one CountVectorizer")
    terms = _weighted(bag.terms, step)
    most = 1.0 if terms.norm else bag.most * _highest(terms)
    return Wide((replace(bag, terms=terms, most=most),))


def reduce(step: TruncatedSVD, data: object, graph: Graph) -> Tensor:
    """Writes the components of a fitted `TruncatedSVD`."""
    weights = np.asarray(step.components_, dtype=np.float64).T
    return times(step, data, weights, graph)


def times(step: Any, data: object, weights: Floats, graph: Graph) -> Tensor:
    """Writes ``data · weights`` for a step that multiplies its columns."""
    if not np.isfinite(weights).all():
        raise graph.cannot(step, "has infinite weights")
    return (
        data.times(weights, graph)
        if isinstance(data, Wide)
        else product(graph.numbers(step, data), weights, graph)
    )


def select(step: Any, data: Wide, graph: Graph) -> Wide:
    """Returns the columns that a selector keeps."""
    for part in data.parts:
        if isinstance(part, Tensor):
            graph.refuse_beyond(part, WIDEST, nan=True)
    kept = np.asarray(step.get_support(), dtype=bool)
    if not kept.any():
        raise graph.cannot(step, "leaves no column")
    return data.picked(kept, graph)


def scale(step: Any, data: Wide, graph: Graph) -> Wide | None:
    """Returns the columns scaled by a step that only multiplies, or None for another step."""
    if type(step).__name__ == "StandardScaler" and not step.with_mean:
        factors = np.ones(data.width) if step.scale_ is None else 1.0 / step.scale_
    elif type(step).__name__ == "MaxAbsScaler" and not getattr(step, "clip", False):
        factors = 1.0 / step.scale_
    else:
        return None
    for part in data.parts:
        if isinstance(part, Tensor):
            graph.refuse_beyond(part, WIDEST)
    return data.scaled(np.asarray(factors, dtype=np.float64), graph)


Writer = Callable[[Any, Any, Graph], Any]
STEPS: Final[dict[type, Writer]] = {
    CountVectorizer: vectorize,
    TfidfVectorizer: vectorize,
    TfidfTransformer: weigh,
    TruncatedSVD: reduce,
}
