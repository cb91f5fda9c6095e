"""Compiled steps give scikit-learn's answers; errors give the reason for other steps."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import BayesianRidge, LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)
from sklearn.tree import DecisionTreeRegressor

from tests.vigia_ml.tables import CATEGORIES, NUMBERS, bands, cheap, features, prices, schema
from vigia_ml.declaration import Task
from vigia_ml.engines import parity
from vigia_ml.engines.onnx import OnnxEngine
from vigia_ml.engines.onnx_export.compile import NotConvertible, compile_pipeline
from vigia_ml.fitting import fit as fitting
from vigia_ml.schema import Column, DatasetSchema
from vigia_ml.transformers.encoding import NumberByCategory
from vigia_ml.transformers.houses import HouseGeometry
from vigia_ml.transformers.text import CleanText, ToFloat

TARGETS: dict[Task, Callable[[], Any]] = {"regression": prices, "binary": cheap, "multiclass": bands}


def one_hot(**more: Any) -> OneHotEncoder:
    return OneHotEncoder(**{"handle_unknown": "ignore", "sparse_output": False} | more)


def codes() -> OrdinalEncoder:
    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=math.nan)


def prepared(categories: Any, numbers: Any = None) -> ColumnTransformer:
    numbers = numbers or make_pipeline(SimpleImputer(), StandardScaler())
    return ColumnTransformer(
        [("numbers", numbers, NUMBERS), ("categories", categories, CATEGORIES)], sparse_threshold=0
    )


def fitted(pipeline: Any, task: Task) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of solvers that have not converged
        return pipeline.fit(features(), TARGETS[task]())


def compared(pipeline: Any, task: Task) -> parity.Parity:
    """Fits a pipeline, compiles it and returns the comparison."""
    fitted(pipeline, task)
    engine = OnnxEngine.from_bytes(compile_pipeline(pipeline, schema(), task), schema())
    return parity.check(pipeline, engine, schema(), features(), task, seed=1, random_rows=500)


REGRESSIONS = {
    "linear": LinearRegression(),
    "ridge": Ridge(),
    "forest": RandomForestRegressor(5, random_state=1),
    "extra trees": ExtraTreesRegressor(5, random_state=1),
    "a tree": DecisionTreeRegressor(max_depth=3),
    "stumps without a split": RandomForestRegressor(2, max_depth=1, min_samples_leaf=200),
    "boosting": GradientBoostingRegressor(n_estimators=10, random_state=1),
    "boosting from zero": GradientBoostingRegressor(n_estimators=5, init="zero"),
    "histogram boosting": HistGradientBoostingRegressor(max_iter=10),
    "histogram boosting of counts": HistGradientBoostingRegressor(max_iter=10, loss="poisson"),
    "mean": VotingRegressor([("a", Ridge()), ("b", DecisionTreeRegressor(max_depth=2))], weights=[1, 3]),
    "square": TransformedTargetRegressor(Ridge(), func=np.sqrt, inverse_func=np.square),
    "expm1": TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1),
    "exp": TransformedTargetRegressor(Ridge(), func=np.log, inverse_func=np.exp),
    "scaled target": TransformedTargetRegressor(Ridge(), transformer=StandardScaler()),
    "search": GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=2),
    "left to skl2onnx": make_pipeline(PCA(3), BayesianRidge()),
}
CLASSIFIERS = {
    "logistic": LogisticRegression(max_iter=500),
    "forest": RandomForestClassifier(5, random_state=1),
    "extra trees": ExtraTreesClassifier(5, random_state=1),
    "boosting": GradientBoostingClassifier(n_estimators=5, random_state=1),
    "histogram boosting": HistGradientBoostingClassifier(max_iter=5),
    "vote": VotingClassifier(
        [("a", LogisticRegression(max_iter=500)), ("b", RandomForestClassifier(3, random_state=1))],
        voting="soft",
    ),
}
ENCODERS = {
    "one-hot": one_hot(),
    "one-hot without the first": one_hot(drop="first"),
    "one-hot with rare levels together": one_hot(handle_unknown="infrequent_if_exist", min_frequency=90),
    "ordinal": make_pipeline(codes(), SimpleImputer(strategy="constant", fill_value=-1.0)),
    "target": TargetEncoder(target_type="continuous"),
    "filled": make_pipeline(SimpleImputer(strategy="most_frequent", missing_values=None), one_hot()),
}
NUMBER_STEPS = {
    "ToFloat": make_pipeline(ToFloat(), SimpleImputer(strategy="median"), StandardScaler(with_std=False)),
    "with flags for nulls": SimpleImputer(add_indicator=True),
    "a union": make_pipeline(
        SimpleImputer(),
        FeatureUnion([("a", StandardScaler()), ("b", MinMaxScaler())], transformer_weights={"a": 2.0}),
    ),
    "a function": make_pipeline(SimpleImputer(), FunctionTransformer(np.abs), FunctionTransformer(np.sqrt)),
}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_regressions_answer_alike(name: str) -> None:
    verdict = compared(make_pipeline(prepared(one_hot()), REGRESSIONS[name]), "regression")
    assert verdict.passed, verdict.reason
    assert verdict.worst is not None
    assert verdict.worst < 1e-12, "double from end to end"


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_answer_alike(name: str, task: Task) -> None:
    verdict = compared(make_pipeline(prepared(one_hot()), CLASSIFIERS[name]), task)
    assert verdict.passed, verdict.reason
    assert verdict.worst is not None
    assert verdict.worst < 1e-12


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_answer_alike(name: str) -> None:
    verdict = compared(make_pipeline(prepared(ENCODERS[name]), Ridge()), "regression")
    assert verdict.passed, verdict.reason


def test_a_target_encoder_of_three_classes_answers_alike() -> None:
    model = make_pipeline(prepared(TargetEncoder()), LogisticRegression(max_iter=500))
    assert compared(model, "multiclass").passed


@pytest.mark.parametrize("name", NUMBER_STEPS)
def test_steps_on_numbers_answer_alike(name: str) -> None:
    verdict = compared(make_pipeline(prepared(one_hot(), NUMBER_STEPS[name]), Ridge()), "regression")
    assert verdict.passed, verdict.reason


def test_pipelines_of_startmodel_answer_alike() -> None:
    parts = [("numbers", "passthrough", NUMBERS), ("categories", codes(), CATEGORIES)]
    model = HistGradientBoostingClassifier(early_stopping=False, max_iter=20, random_state=1)
    verdict = compared(Pipeline([("features", ColumnTransformer(parts)), ("model", model)]), "multiclass")
    assert verdict.passed, verdict.reason


def test_cleaned_texts_are_looked_up_where_the_levels_are_declared() -> None:
    clean = make_pipeline(CleanText(), one_hot())
    parts = [("slopes", NumberByCategory("count"), ["count", "colour"]), ("levels", clean, ["colour"])]
    verdict = compared(make_pipeline(ColumnTransformer(parts), Ridge()), "regression")
    assert verdict.passed, verdict.reason


def test_columns_are_selected_by_name_position_slice_and_mask() -> None:
    imputer = SimpleImputer()
    chosen = {
        "name": ["count", "size"],
        "place": [1, -6],
        "slice": slice("size", "new"),
        "mask": [True] + [False] * 5,
    }
    for columns in chosen.values():
        model = make_pipeline(ColumnTransformer([("numbers", imputer, columns)]), Ridge())
        assert compared(model, "regression").passed, columns


# -- by hand -------------------------------------------------------------------------------------------


def answers(pipeline: Any, learned: DatasetSchema, *rows: dict[str, Any]) -> list[Any]:
    engine = OnnxEngine.from_bytes(compile_pipeline(pipeline, learned, "regression"), learned)
    return list(engine.predict(rows).values)


def learned(column: Column, values: pd.Series[Any]) -> DatasetSchema:
    return DatasetSchema((column,), Column("y", "number")).learn({column.name: fitting.seen(column, values)})


def test_levels_unknown_texts_and_null_get_the_encoders_numbers() -> None:
    frame = pd.DataFrame({"town": pd.Series(["Soria", "Madrid", None, "Soria"], dtype=object)})
    model = make_pipeline(one_hot(), LinearRegression(fit_intercept=False)).fit(frame, [1.0, 2.0, 4.0, 1.0])
    columns = learned(Column("town", "category", nullable=True), frame["town"])
    rows = [{"town": town} for town in ("Soria", "Madrid", None, "Lugo")]
    assert answers(model, columns, *rows) == pytest.approx([1.0, 2.0, 4.0, 0.0], abs=1e-12)


def test_a_threshold_between_two_doubles_is_kept() -> None:
    """Both values are 0.1 in single precision, where the second would go to the first one's side."""
    low = 0.1
    high = float(np.nextafter(low, 1.0))
    frame = pd.DataFrame({"x": np.array([low, high] * 20)})
    model = HistGradientBoostingRegressor(max_iter=1, learning_rate=1.0, min_samples_leaf=1)
    model.fit(frame, np.array([1.0, 3.0] * 20))
    result = answers(model, learned(Column("x", "number"), frame["x"]), {"x": low}, {"x": high})
    assert result == model.predict(pd.DataFrame({"x": [low, high]})).tolist()
    assert result == pytest.approx([1.0, 3.0])


def test_a_forest_takes_its_input_in_single_precision_as_scikit_learn_does() -> None:
    frame = pd.DataFrame({"x": np.linspace(0.0, 1.0, 200)})
    model = DecisionTreeRegressor().fit(frame, np.arange(200.0))
    edges = np.concatenate([np.nextafter(model.tree_.threshold, side) for side in (-9.0, 9.0)])
    edges = edges[edges >= 0]
    rows = [{"x": value} for value in edges.tolist()]
    expected = model.predict(pd.DataFrame({"x": edges})).tolist()
    assert answers(model, learned(Column("x", "number"), frame["x"]), *rows) == expected


def test_nulls_take_the_side_that_the_tree_learned() -> None:
    frame = pd.DataFrame({"x": [0.0, 1.0, 2.0, np.nan] * 10})
    columns = learned(Column("x", "number", nullable=True), frame["x"])
    for model in (
        RandomForestRegressor(3, bootstrap=False),
        HistGradientBoostingRegressor(max_iter=1, learning_rate=1.0, min_samples_leaf=1),
    ):
        model.fit(frame, np.array([0.0, 0.0, 5.0, 5.0] * 10))
        assert answers(model, columns, {"x": None}, {"x": 0.0}) == pytest.approx([5.0, 0.0])


def test_rows_that_scikit_learn_rejects_are_nan() -> None:
    frame = pd.DataFrame({"town": pd.Series(["Soria", "Madrid"] * 10, dtype=object)})
    model = make_pipeline(OrdinalEncoder(), HistGradientBoostingRegressor(min_samples_leaf=1, max_iter=1))
    model.fit(frame, np.array([1.0, 2.0] * 10))
    with pytest.raises(ValueError, match="unknown categories"):
        model.predict(pd.DataFrame({"town": ["Lugo"]}))
    columns = learned(Column("town", "category"), frame["town"])
    known, unknown = answers(model, columns, {"town": "Soria"}, {"town": "Lugo"})
    assert math.isfinite(known)
    assert math.isnan(unknown)


def test_the_compiled_house_geometry_equals_the_transformers() -> None:
    names = ("lat", "lng", "surface", "net_surface", "rooms", "bathrooms")
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({name: rng.uniform(1, 50, 50) for name in names})
    frame.loc[::7, "rooms"] = 0.0
    frame.loc[::5, "net_surface"] = np.nan
    columns = DatasetSchema(
        tuple(Column(name, "number", nullable=True) for name in names), Column("y", "number")
    )
    model = make_pipeline(HouseGeometry(), HistGradientBoostingRegressor(max_iter=30)).fit(
        frame, frame["lat"]
    )
    rows = [{k: None if math.isnan(v) else v for k, v in row.items()} for row in frame.to_dict("records")]
    assert answers(model, columns, *rows) == pytest.approx(model.predict(frame).tolist(), rel=1e-12)


# -- pipelines that are not converted ------------------------------------------------------------------


def words() -> Any:
    return make_pipeline(HashingVectorizer(n_features=16, preprocessor=str), PCA(2))


REFUSED = {
    "free text": (
        make_pipeline(ColumnTransformer([("words", words(), "remark")], sparse_threshold=0), Ridge()),
        r"step columntransformer / words / hashingvectorizer \(HashingVectorizer\) hashes its words: use",
    ),
    "categories that are cleaned and have no declared levels": (
        make_pipeline(prepared(make_pipeline(CleanText(), one_hot())), Ridge()),
        r"does not treat all unknown texts of town alike .* declare the column's levels",
    ),
    "trees that only skl2onnx knows": (
        make_pipeline(prepared(one_hot()), AdaBoostRegressor(n_estimators=2)),
        r"\(AdaBoostRegressor\) is not supported by the compiler, and skl2onnx may round the numbers",
    ),
    "another start": (
        make_pipeline(prepared(one_hot()), GradientBoostingRegressor(n_estimators=2, init=Ridge())),
        r"\(GradientBoostingRegressor\) starts from another estimator \(Ridge\)",
    ),
    "a function nobody knows": (
        make_pipeline(
            prepared(one_hot()), TransformedTargetRegressor(Ridge(), func=np.cbrt, inverse_func=abs)
        ),
        r"\(TransformedTargetRegressor\) applies abs; known are numpy\.absolute, numpy\.exp",
    ),
    "categories inside of the boosting": (
        make_pipeline(
            ColumnTransformer([("codes", codes(), ["colour"])]),
            HistGradientBoostingRegressor(max_iter=2, categorical_features=[0]),
        ),
        r"\(HistGradientBoostingRegressor\) splits by sets of categories: encode them",
    ),
    "texts and numbers in one encoder": (
        make_pipeline(ColumnTransformer([("both", one_hot(), ["count", "colour"])]), Ridge()),
        r"\(OneHotEncoder\) takes texts and numbers together",
    ),
}


class Doubled(FunctionTransformer):
    """A custom transformer."""

    def __init__(self) -> None:
        super().__init__(np.abs)


@pytest.mark.parametrize("name", REFUSED)
def test_the_error_names_the_step_that_cannot_be_compiled_and_the_reason(name: str) -> None:
    pipeline, reason = REFUSED[name]
    with pytest.raises(NotConvertible, match=reason):
        compile_pipeline(fitted(pipeline, "regression"), schema(), "regression")


def test_an_unknown_step_is_named() -> None:
    pipeline = fitted(make_pipeline(prepared(one_hot()), Doubled(), Ridge()), "regression")
    with pytest.raises(NotConvertible, match=r"step doubled \(Doubled\) is not supported by the compiler"):
        compile_pipeline(pipeline, schema(), "regression")


def test_any_error_of_the_compiler_is_a_reason() -> None:
    with pytest.raises(NotConvertible, match="the compiler failed: AttributeError"):
        compile_pipeline(make_pipeline(prepared(one_hot()), Ridge()), schema(), "regression")  # not fitted


def test_columns_with_more_levels_than_stored_are_not_compiled() -> None:
    many = pd.Series([f"level {place}" for place in range(fitting.LEVELS_REMEMBERED + 5)], dtype=object)
    columns = learned(Column("town", "category"), many)
    with pytest.raises(NotConvertible, match="town has more levels than a version stores"):
        compile_pipeline(Ridge(), columns, "regression")


# -- memory --------------------------------------------------------------------------------------------

LOAD = """
import ctypes, json, pathlib, sys
from vigia_ml.engines.onnx import OnnxEngine
from vigia_ml.schema import DatasetSchema

def private():
    ctypes.CDLL(None).malloc_trim(0)
    lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty"))

files = pathlib.Path(sys.argv[1])
schema = DatasetSchema.from_json(json.loads((files / "schema").read_text()))
first = OnnxEngine.from_bytes((files / "small").read_bytes(), schema)
before = private()
second = OnnxEngine.from_bytes((files / "large").read_bytes(), schema)
print(private() - before)
"""


def test_a_loaded_forest_keeps_its_trees_once_and_no_bytes_of_its_artifact(tmp_path: Path) -> None:
    learned = schema()
    rng = np.random.default_rng(1)
    frame, target = pd.DataFrame(rng.normal(size=(1000, 1)), columns=["size"]), rng.normal(size=1000)
    columns = DatasetSchema(tuple(c for c in learned.columns if c.name == "size"), learned.target)
    nodes = 0
    for name, trees in (("small", 1), ("large", 100)):
        forest = RandomForestRegressor(trees, random_state=1).fit(frame, target)
        (tmp_path / name).write_bytes(compile_pipeline(forest, columns, "regression"))
        nodes = sum(each.tree_.node_count for each in forest.estimators_)
    (tmp_path / "schema").write_text(json.dumps(columns.to_json()))
    command = [sys.executable, "-c", LOAD, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) / nodes < 50, "bytes; measured 41, with the artifact 58, with both 96"


# -- reason for compiling trees without skl2onnx -------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [HistGradientBoostingRegressor(max_iter=2), RandomForestRegressor(2)],
    ids=["histogram", "forest"],
)
def test_skl2onnx_still_has_no_trees_in_double(model: Any) -> None:
    """A failure means that skl2onnx has new trees: see whether `vigia_ml.engines.onnx_export.trees` and
    its callers can go. Now, histogram boosting is not converted (a boolean where an integer is required),
    and a forest's output is single where double was declared, which ONNX Runtime rejects."""
    import onnxruntime
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType

    model.fit(np.arange(40.0).reshape(-1, 1), np.arange(40.0))
    with pytest.raises(Exception, match=r"TreeEnsembleRegressor"):
        converted = convert_sklearn(
            model, initial_types=[("x", DoubleTensorType([None, 1]))], target_opset={"": 21, "ai.onnx.ml": 3}
        )
        onnxruntime.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"])
