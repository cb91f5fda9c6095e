"""Converts the steps of `vigia_ml.transformers.cars`, which read listings of used cars.

The transformers' own readers read the listing's texts (see `vigia_ml.engines.texts`); the fitted steps'
answers to keys and tokens become tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.preprocessing import TargetEncoder

from vigia_ml.engines.onnx_export.encoders import UNKNOWN_TEXTS, look_up
from vigia_ml.engines.onnx_export.graph import INT64, Derived, Frame, Graph, Tensor, TextKey, Tokens
from vigia_ml.engines.texts import TextNumber
from vigia_ml.schema.matrix import levels_of
from vigia_ml.transformers.cars import CAR_CATEGORIES, CarColumns, LinearDesign
from vigia_ml.transformers.listings import NAME_LEVELS, field_tokens
from vigia_ml.transformers.plain import clean
from vigia_ml.transformers.text import CleanText

Floats = NDArray[np.float64]
# Number of the rich listing -> column, reader, position among the reader's numbers.
SPECS: Final = {
    "mileage": ("mileage", "car mileage", 0),
    "per_kg": ("mileage", "car mileage", 1),
    "engine_cc": ("engine", "number", 0),
    "max_power_bhp": ("max_power", "number", 0),
    "torque_nm": ("torque", "car torque", 0),
}


def car_columns(step: CarColumns, frame: Frame, graph: Graph) -> Derived:
    """Writes the nodes of `CarColumns`."""
    if not np.isfinite(step.reference_):
        raise graph.cannot(step, "was fitted without a year")

    def numbers(name: str) -> Tensor:
        return graph.numbers(step, frame.pick([frame.names.index(name)]))

    def text(name: str) -> int:
        return frame.places[frame.names.index(name)]

    year, distance = numbers("year"), numbers("km_driven")
    limit = abs(step.reference_) + year.limit
    age = _at_least_0(graph.node("Sub", graph.constant(step.reference_), year.name), limit, graph)
    km = _at_least_0(distance.name, distance.limit, graph)
    per_year = graph.node("Div", km.name, graph.node("Add", age.name, graph.constant(1.0)))
    log_km = graph.node("Log", graph.node("Add", km.name, graph.constant(1.0)))
    name = text("name")
    parts: dict[str, Tensor | Frame | TextKey | Tokens] = {
        "age": age,
        "km_driven": km,
        "km_per_year": Tensor(per_year, 1, km.limit),
        "log_km": Tensor(log_km, 1, max(km.limit, 1.0)),
        "litres": graph.text(TextNumber(name, "car name", "number", 0)),
    }
    if step.specs:
        for spec, (column, reader, at) in SPECS.items():
            parts[spec] = graph.text(TextNumber(text(column), reader, "number", at))
        parts["seats"] = numbers("seats")
    categories = frame.pick([frame.names.index(column) for column in CAR_CATEGORIES])
    parts |= {column: categories.pick([at]) for at, column in enumerate(CAR_CATEGORIES)}
    parts |= {level: TextKey(name, "car name", at) for at, level in enumerate(NAME_LEVELS)}
    return Derived(parts | {"words": Tokens(categories, name, "car name")})


def _at_least_0(name: str, limit: float, graph: Graph) -> Tensor:
    """Writes max(0, x); null stays null, as in numpy."""
    negative = graph.node("Less", name, graph.constant(0.0))
    return Tensor(graph.node("Where", negative, graph.constant(0.0), name), 1, limit)


def encode_derived(step: Any, data: Derived, graph: Graph) -> Tensor:
    """Writes an encoder of cleaned categories, or of keys of texts."""
    frames = [part for part in data.parts.values() if isinstance(part, Frame)]
    if len(frames) == len(data.parts):
        columns = tuple(column for part in frames for column in part.columns)
        places = tuple(place for part in frames for place in part.places)
        texts = Frame(columns, places, frames[0].matrix)
        cleaning = CleanText().fit(pd.DataFrame(columns=list(texts.names)))
        return look_up([("clean", cleaning), ("encoder", step)], texts, graph)[0]
    keys = [part for part in data.parts.values() if isinstance(part, TextKey)]
    if len(keys) < len(data.parts) or not isinstance(step, TargetEncoder):
        raise graph.cannot(step, "takes derived texts in a way that the compiler does not support")
    return graph.concat([_encoded_key(step, data, at, graph) for at in range(len(keys))])


def _encoded_key(step: TargetEncoder, data: Derived, at: int, graph: Graph) -> Tensor:
    """Writes the fitted encoder's answers to each known key and to an unknown one, as a table."""
    part = data.parts[data.names[at]]
    assert isinstance(part, TextKey)
    known = [str(key) for key in step.categories_[at]]
    keys = [*known, UNKNOWN_TEXTS[0]]
    firsts = zip(data.names, step.categories_, strict=True)
    fixed = {name: [levels[0]] * len(keys) for name, levels in firsts}
    answers = step.transform(pd.DataFrame(fixed | {data.names[at]: keys}, dtype=object))
    if answers.shape[1] != len(data.parts):
        raise graph.cannot(step, "makes several columns from one")
    table = dict(zip(known, answers[:-1, at].tolist(), strict=True))
    return graph.text(
        TextNumber(part.column, part.reader, "key", part.at, table, default=float(answers[-1, at]))
    )


@dataclass(frozen=True)
class Design:
    """A linear design that is never materialised: it has thousands of columns for words, nearly all zero.

    dense : the terms before the words. age : standardised. tokens : their counts are the words' columns.
    """

    step: LinearDesign
    dense: Tensor
    age: Tensor
    tokens: Tokens

    def times(self, model: Any, graph: Graph) -> Tensor:
        """Writes ``x · coef + intercept`` of a linear model fitted on the design."""
        coef = np.asarray(model.coef_, dtype=np.float64).ravel()
        words = self.step.words_.get_feature_names_out().tolist()
        ends = np.cumsum([self.dense.width, len(words), len(self.step.brands_)])
        if len(coef) != ends[-1]:
            raise graph.cannot(model, "predicts several targets")
        dense, counted, slopes = np.split(coef, ends[:-1])
        weights = dict(zip(words, (counted * self.step.weight).tolist(), strict=True))
        brands = [words[brand] for brand in self.step.brands_]
        per_year = dict(zip(brands, slopes.tolist(), strict=True))
        text = (self.tokens.column, self.tokens.reader)
        parts = [
            graph.node("MatMul", self.dense.name, graph.constant(dense[:, None])),
            graph.text(TextNumber(*text, "tokens", table=weights)).name,
            *_category_terms(model, self.tokens.categories, weights, graph),
            graph.node(
                "Mul",
                graph.text(TextNumber(*text, "distinct tokens", table=per_year)).name,
                self.age.name,
            ),
            graph.constant(np.ravel(model.intercept_)),
        ]
        total = parts[0]
        for part in parts[1:]:
            total = graph.node("Add", total, part)
        return Tensor(total, 1, np.inf)


def _category_terms(model: Any, frame: Frame, weights: Mapping[str, float], graph: Graph) -> list[str]:
    """Writes, for each category, the sum of its tokens' weights, looked up by its code."""
    terms = []
    for at, (column, place) in enumerate(zip(frame.columns, frame.places, strict=True)):
        if not column.levels:
            raise graph.cannot(model, f"takes the words of {column.name}: declare the column's levels")
        values = [*levels_of(column), None]
        sums = [sum(weights.get(token, 0.0) for token in field_tokens(at, clean(value))) for value in values]
        codes = graph.gather(frame.matrix, [place])
        null = graph.constant(len(values) - 1.0)
        index = graph.cast(graph.node("Where", graph.node("IsNaN", codes), null, codes), INT64)
        terms.append(graph.node("Gather", graph.constant(sums), index, axis=0))
    return terms


def linear_design(step: LinearDesign, data: Derived, graph: Graph) -> Design:
    """Writes the nodes of `LinearDesign`, without the words."""
    tokens = data.parts["words"]
    assert isinstance(tokens, Tokens)
    names = [*step.CURVE, *step.numbers]
    raw = graph.numbers(step, data.pick([data.names.index(name) for name in names]))
    known = graph.node("Where", graph.node("IsNaN", raw.name), graph.constant(step.median_), raw.name)
    clipped = graph.node("Max", known, graph.constant(step.low_))
    clipped = graph.node("Min", clipped, graph.constant(step.high_))
    centred = graph.node("Sub", clipped, graph.constant(step.mean_))
    scaled = graph.node("Div", centred, graph.constant(step.scale_))
    furthest = np.maximum(np.abs(step.low_ - step.mean_), np.abs(step.high_ - step.mean_)) / step.scale_
    age, km = (Tensor(graph.gather(scaled, [at]), 1, float(furthest[at])) for at in (0, 1))
    curve = [_term(age, a, km, b, graph) for a, b in step.POWERS]
    rest = list(range(2, len(names)))
    numbers = Tensor(graph.gather(scaled, rest), len(rest), float(furthest.max()))
    return Design(step, graph.concat([*curve, numbers]), age, tokens)


def _term(first: Tensor, a: int, second: Tensor, b: int, graph: Graph) -> Tensor:
    """Writes ``first ** a * second ** b``."""
    factors = [first.name] * a + [second.name] * b
    name = factors[0]
    for factor in factors[1:]:
        name = graph.node("Mul", name, factor)
    return Tensor(name, 1, first.limit**a * second.limit**b)
