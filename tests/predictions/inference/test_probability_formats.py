"""Every class's probability, in answers and log rows, for any classes and any numbers of an engine."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictions.inference import pipeline
from predictions.inference.pipeline import Caller
from training.serving.engine_cache import Served, format_of
from vigia_ml.engines import Scored, Scores
from vigia_ml.schema import Column, DatasetSchema
from vigia_ml.schema.row_decoder import CompiledSchema, Rows


class _Engine:
    """An engine that gives these probabilities to its rows, as the compiled one or as scikit-learn's does."""

    name, text_columns = "fixed", ()

    def __init__(self, classes: tuple[Any, ...], numbers: list[list[float]], *, takes_matrix: bool) -> None:
        self.takes_matrix = takes_matrix
        self.classes, self.numbers = classes, np.array(numbers, dtype=np.float64)

    def score(self, matrix: Any, texts: Any = ()) -> Scored:
        return Scored(probabilities=self.numbers, classes=self.classes)

    def predict(self, rows: Any) -> Scores:
        return self.score(None).plain()


LABELS = st.one_of(
    st.just((False, True)),
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
        min_size=2, max_size=6, unique=True,
    ).map(lambda labels: tuple(sorted(labels))),
)  # fmt: skip


@st.composite
def scored(draw: st.DrawFn) -> tuple[tuple[Any, ...], list[list[float]]]:
    classes = draw(LABELS)
    weight = st.floats(0, 1) | st.sampled_from([0.0, 5e-324, 1e-300, 1e-17, 1.0])
    rows = draw(
        st.lists(st.lists(weight, min_size=len(classes), max_size=len(classes)), min_size=1, max_size=5)
    )
    totals = [math.fsum(row) for row in rows]
    return classes, [
        [number / total for number in row] if total > 0 else [1.0, *[0.0] * (len(row) - 1)]
        for row, total in zip(rows, totals, strict=True)
    ]


@settings(max_examples=200)
@given(scored(), st.floats(0, 1), st.booleans())
def test_all_ways_agree_for_any_classes_and_numbers(
    case: tuple[tuple[Any, ...], list[list[float]]], threshold: float, takes_matrix: bool
) -> None:
    classes, numbers = case
    is_binary = len(classes) == 2
    schema = DatasetSchema(columns=(Column("x", "number"),), target=Column("y", "category"))
    served = Served(
        model_id=1, model_name="any", version_id=1, number=1, schema=schema, compiled=CompiledSchema(schema),
        threshold=threshold if is_binary else None, size=0, by_class=format_of(classes),
        engine=_Engine(classes, numbers, takes_matrix=takes_matrix),
    )  # fmt: skip
    rows = Rows(served.compiled, [(0.0,)] * len(numbers), [None] * len(numbers))
    prepared = pipeline.prepared(served, rows, Caller(None, "r"), 0, every_class=True)
    keys = [label if isinstance(label, str) else str(label).lower() for label in classes]
    logged = prepared.entry(0).rows
    for at, (each, row) in enumerate(zip(prepared.as_dict()["predictions"], numbers, strict=True)):
        by_class = each["probabilities"]
        assert list(by_class) == keys
        assert math.fsum(by_class.values()) == pytest.approx(1.0, abs=1e-9)
        if is_binary:
            p = row[1]
            assert each["probability"] == by_class[keys[1]] == p
            assert by_class[keys[0]] == 1.0 - p
            assert each["prediction"] == classes[int(p >= threshold)]
            assert logged.by_class is None
        else:
            assert list(by_class.values()) == row
            assert each["prediction"] == classes[row.index(max(row))]
            assert each["probability"] == max(row)
            assert logged.by_class is not None and json.loads(logged.by_class[at]) == row
