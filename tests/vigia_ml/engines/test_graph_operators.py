"""The compiler's graphs pass the check, and the check allows no operator that the compiler never writes."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    BayesianRidge,
    HuberRegressor,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    SGDClassifier,
)
from sklearn.naive_bayes import ComplementNB, GaussianNB, MultinomialNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    PolynomialFeatures,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, NuSVC

from tests.vigia_ml.engines.test_onnx_export import (
    CLASSIFIERS,
    ENCODERS,
    NUMBER_STEPS,
    REGRESSIONS,
    TARGETS,
    one_hot,
    prepared,
)
from tests.vigia_ml.tables import features, schema
from vigia_ml.declaration import Task
from vigia_ml.engines import parity
from vigia_ml.engines.graph_check import BadGraph, check
from vigia_ml.engines.graph_operators import RULES
from vigia_ml.engines.onnx import OnnxEngine
from vigia_ml.engines.onnx_export.compile import compile_pipeline
from vigia_ml.engines.onnx_export.graph import DOMAIN
from vigia_ml.fitting.fit import seen
from vigia_ml.schema import Column, DatasetSchema

NAMES = list("abcd")
CONTINUOUS_REGRESSIONS = {
    "bayes": BayesianRidge(),
    "huber": HuberRegressor(),
    "poisson": PoissonRegressor(),
    "neurons": MLPRegressor(hidden_layer_sizes=(5,), max_iter=50),
    "tanh": MLPRegressor(hidden_layer_sizes=(5,), activation="tanh", max_iter=50),
    "vectors": SVR(),
    "polynomial vectors": SVR(kernel="poly"),
    "stack": StackingRegressor([("a", LinearRegression()), ("b", BayesianRidge())]),
    "power": make_pipeline(PowerTransformer(), LinearRegression()),
    "components": make_pipeline(PCA(2), LinearRegression()),
    "components in parts": make_pipeline(IncrementalPCA(2), LinearRegression()),
    "singular values": make_pipeline(TruncatedSVD(2), LinearRegression()),
    "clipped": make_pipeline(MinMaxScaler(clip=True), MaxAbsScaler(), RobustScaler(), LinearRegression()),
    "cuts": make_pipeline(Binarizer(threshold=0.5), LinearRegression()),
    "bins": make_pipeline(KBinsDiscretizer(3, encode="onehot-dense"), LinearRegression()),
    "selected": make_pipeline(SelectKBest(k=2), LinearRegression()),
    "polynomial": make_pipeline(PolynomialFeatures(3), LinearRegression()),
    "interactions": make_pipeline(PolynomialFeatures(2, interaction_only=True), Ridge()),
    "cubes alone": make_pipeline(PolynomialFeatures((2, 3), include_bias=False), Ridge()),
}
CONTINUOUS_CLASSIFIERS = {
    "calibrated": CalibratedClassifierCV(LogisticRegression(), cv=2),
    "calibrated by skl2onnx": CalibratedClassifierCV(GaussianNB(), cv=2),
    "gauss": GaussianNB(),
    "counts": MultinomialNB(),
    "complements": ComplementNB(),
    "linear discriminants": LinearDiscriminantAnalysis(),
    "quadratic discriminants": QuadraticDiscriminantAnalysis(),
    "neurons": MLPClassifier(hidden_layer_sizes=(5,), max_iter=50),
    "steps": SGDClassifier(loss="log_loss"),
    "vectors": SVC(probability=True),
    "other vectors": NuSVC(probability=True, nu=0.1, kernel="sigmoid"),
    "stack": StackingClassifier([("a", LogisticRegression()), ("b", GaussianNB())]),
}
OWN: dict[str, tuple[Any, Task]] = {
    **{
        f"{name}": (make_pipeline(prepared(one_hot()), each), "regression")
        for name, each in REGRESSIONS.items()
    },
    **{
        f"{name} of {task}": (make_pipeline(prepared(one_hot()), each), task)
        for name, each in CLASSIFIERS.items()
        for task in ("binary", "multiclass")
    },
    **{f"{name}": (make_pipeline(prepared(each), Ridge()), "regression") for name, each in ENCODERS.items()},
    **{
        f"steps: {name}": (make_pipeline(prepared(one_hot(), each), Ridge()), "regression")
        for name, each in NUMBER_STEPS.items()
    },
}
CONTINUOUS: dict[str, tuple[Any, Task]] = {
    **{f"{name}": (each, "regression") for name, each in CONTINUOUS_REGRESSIONS.items()},
    **{
        f"{name} of {task}": (each, task)
        for name, each in CONTINUOUS_CLASSIFIERS.items()
        for task in ("binary", "multiclass")
    },
}
# Operators of steps whose tests lie elsewhere.
ELSEWHERE = {("", "Floor"), ("", "Max"), ("", "Min")}


def numbers() -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(np.abs(rng.normal(size=(200, 4))), columns=NAMES)
    return frame, frame["a"].to_numpy() * 2 + frame["b"].to_numpy() + 0.1


def numeric_schema(target: str) -> DatasetSchema:
    frame, _ = numbers()
    columns = tuple(Column(name, "number") for name in NAMES)
    known = {column.name: seen(column, frame[column.name]) for column in columns}
    return DatasetSchema(columns, Column("t", target)).learn(known)


@cache
def compiled(name: str) -> tuple[bytes, DatasetSchema, Task, tuple[Any, ...] | None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in OWN:
            model, task = OWN[name]
            fitted, known = clone(model).fit(features(), TARGETS[task]()), schema()
        else:
            model, task = CONTINUOUS[name]
            frame, target = numbers()
            if task != "regression":
                target = np.digitize(target, np.quantile(target, [0.5] if task == "binary" else [0.3, 0.7]))
            fitted, known = clone(model).fit(frame, target), numeric_schema("number")
        graph = compile_pipeline(fitted, known, task)
    return graph, known, task, None if task == "regression" else tuple(fitted.classes_.tolist())


@pytest.mark.parametrize("name", [*OWN, *CONTINUOUS])
def test_what_the_compiler_writes_is_accepted(name: str) -> None:
    graph, known, task, classes = compiled(name)
    check(graph, known, task, classes)


def test_no_operator_is_allowed_that_the_compiler_does_not_write() -> None:
    written = set()
    for name in [*OWN, *CONTINUOUS]:
        functions = onnx.load_from_string(compiled(name)[0]).functions
        written |= {(node.domain, node.op_type) for each in functions for node in each.node}
    assert DOMAIN not in {domain for domain, _ in written}
    assert written | ELSEWHERE == set(RULES)


@pytest.mark.parametrize("name", ["polynomial", "interactions", "cubes alone"])
def test_polynomial_features_answer_alike(name: str) -> None:
    frame, target = numbers()
    model, known = clone(CONTINUOUS_REGRESSIONS[name]).fit(frame, target), numeric_schema("number")
    engine = OnnxEngine.from_bytes(compile_pipeline(model, known, "regression"), known)
    verdict = parity.check(model, engine, known, frame, "regression", seed=1, random_rows=500)
    assert verdict.passed, verdict.reason
    assert verdict.worst is not None
    assert verdict.worst < 1e-12


def test_polynomial_features_of_a_column_transformer_answer_alike() -> None:
    steps = make_pipeline(SimpleImputer(), PolynomialFeatures(2))
    model = make_pipeline(
        ColumnTransformer([("numbers", steps, ["size", "count"])]), StandardScaler(), Ridge()
    ).fit(features(), TARGETS["regression"]())
    engine = OnnxEngine.from_bytes(compile_pipeline(model, schema(), "regression"), schema())
    assert parity.check(model, engine, schema(), features(), "regression", seed=1, random_rows=300).passed


def test_graphs_that_loop_stay_with_models_trained_here() -> None:
    frame, target = numbers()
    known = numeric_schema("number")
    graph = compile_pipeline(GaussianProcessRegressor().fit(frame, target), known, "regression")
    with pytest.raises(BadGraph, match="which no graph from elsewhere may have"):
        check(graph, known, "regression", None)
