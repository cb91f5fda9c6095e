"""Converts estimators that combine the answers of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, BaggingRegressor, StackingClassifier, StackingRegressor
from sklearn.multiclass import OneVsRestClassifier

from vigia_ml.engines.onnx_export.graph import Frame, Graph, Tensor
from vigia_ml.engines.onnx_export.skl2onnx_fallback import foreign, is_continuous

Answer = Callable[[Any, Any, Graph], Tensor]


def stacking(
    model: StackingClassifier | StackingRegressor, data: Any, graph: Graph, answer: Answer
) -> Tensor:
    """Writes the final estimator's answer to the estimators' answers."""
    # Edges of a final estimator that compares are not traced back to columns, see `vigia_ml.engines.edges`.
    if not is_continuous(model.final_estimator_):
        raise graph.cannot(model, f"ends with {type(model.final_estimator_).__name__}, which may jump")
    names = [name for name, each in model.estimators if not isinstance(each, str)]
    parts = []
    for name, each, method in zip(names, model.estimators_, model.stack_method_, strict=True):
        with graph.step(name):
            if method == "decision_function" or (method == "predict" and hasattr(each, "classes_")):
                raise graph.cannot(each, f"gives {method} to the final estimator: use one with predict_proba")
            result = answer(each, data, graph)
        if method == "predict_proba" and result.width == 2:
            result = Tensor(graph.gather(result.name, [1]), 1, result.limit)
        parts.append(result)
    if model.passthrough:
        parts.append(graph.numbers(model, data))
    return answer(model.final_estimator_, graph.concat(parts), graph)


def bagging(model: BaggingClassifier | BaggingRegressor, data: Any, graph: Graph, answer: Answer) -> Tensor:
    """Writes the mean of the estimators' answers."""
    everything = np.arange(model.n_features_in_)
    if not all(np.array_equal(chosen, everything) for chosen in model.estimators_features_):
        raise graph.cannot(model, "gives each estimator other columns: leave max_features at 1.0")
    is_classifier = isinstance(model, BaggingClassifier)
    if is_classifier and not all(hasattr(each, "predict_proba") for each in model.estimators_):
        raise graph.cannot(model, "votes without probabilities")
    if is_classifier and any(len(each.classes_) != model.n_classes_ for each in model.estimators_):
        raise graph.cannot(model, "has an estimator that did not see every class")
    source = graph.numbers(model, data) if isinstance(data, Frame) else data
    total, width = "", 1
    for each in model.estimators_:
        result = answer(each, source, graph)
        total, width = (graph.node("Add", total, result.name) if total else result.name), result.width
    # The division comes last, as in scikit-learn: where votes are even, a last bit decides.
    return Tensor(graph.node("Div", total, graph.constant(float(len(model.estimators_)))), width, np.inf)


def one_versus_rest(model: OneVsRestClassifier, data: Any, graph: Graph, answer: Answer) -> Tensor:
    """Writes the classes' probabilities, each by an estimator of its own, divided by their sum."""
    if model.multilabel_ or not all(hasattr(each, "classes_") for each in model.estimators_):
        raise graph.cannot(model, "answers with several classes, or with one class alone")
    parts = []
    for each in model.estimators_:
        result = answer(each, data, graph)
        parts.append(Tensor(graph.gather(result.name, [1]), 1, 1.0))
    if len(parts) == 1:
        negative = graph.node("Sub", graph.constant(1.0), parts[0].name)
        return graph.concat([Tensor(negative, 1, 1.0), parts[0]])
    together = graph.concat(parts)
    return Tensor(graph.node("Div", together.name, _sum(together.name, graph)), together.width, 1.0)


def calibrated(model: CalibratedClassifierCV, data: Any, graph: Graph, answer: Answer) -> Tensor:
    """Writes the mean of calibrated classifiers, each by Platt's sigmoid of a probability (2000)."""
    members = model.calibrated_classifiers_
    if model.method != "sigmoid":
        raise graph.cannot(model, f'calibrates by method="{model.method}", which may jump')
    if hasattr(members[0].estimator, "decision_function"):
        return foreign(model, "predict_proba", graph.numbers(model, data), graph)
    total, width = "", len(model.classes_)
    for member in members:
        if len(member.estimator.classes_) != width:
            raise graph.cannot(model, "has a classifier that did not see every class")
        shares = answer(member.estimator, data, graph)
        if width == 2:
            shares = Tensor(graph.gather(shares.name, [1]), 1, 1.0)
        slope = graph.constant([-each.a_ for each in member.calibrators])
        plus = graph.constant([-each.b_ for each in member.calibrators])
        scores = graph.node("Add", graph.node("Mul", shares.name, slope), plus)
        result = graph.node("Sigmoid", scores)
        if width == 2:
            negative = graph.node("Sub", graph.constant(1.0), result)
            result = graph.concat([Tensor(negative, 1, 1.0), Tensor(result, 1, 1.0)]).name
        else:
            result = graph.node("Div", result, _sum(result, graph))
        total = graph.node("Add", total, result) if total else result
    return Tensor(graph.node("Div", total, graph.constant(float(len(members)))), width, 1.0)


def _sum(name: str, graph: Graph) -> str:
    return graph.node("ReduceSum", name, graph.constant([1], np.int64))
