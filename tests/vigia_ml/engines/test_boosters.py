"""LightGBM, XGBoost and CatBoost: compiled estimators answer as the libraries do, at their thresholds too."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from catboost import CatBoostClassifier, CatBoostRegressor
from lightgbm import LGBMClassifier, LGBMRegressor, early_stopping
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBClassifier, XGBRegressor, XGBRFRegressor

from tests.vigia_ml.engines.test_onnx_export import TARGETS
from tests.vigia_ml.tables import CATEGORIES, NUMBERS, features, schema
from vigia_ml.declaration import Task
from vigia_ml.engines import boosted_trees, parity
from vigia_ml.engines.edges import neighbours
from vigia_ml.engines.frame_adapter import AskedByFrame
from vigia_ml.engines.graph_check import check
from vigia_ml.engines.onnx import OnnxEngine
from vigia_ml.engines.onnx_export.compile import NotConvertible, compile_pipeline
from vigia_ml.fitting.fit import seen
from vigia_ml.schema import Column, DatasetSchema

ROWS = 400
NAMES = ["a", "b", "c", "d", "z"]
TASKS: list[Task] = ["regression", "binary", "multiclass"]
LGBM = {"n_estimators": 30, "verbose": -1, "n_jobs": 1}
XGB = {"n_estimators": 30, "n_jobs": 1}
CAT = {"iterations": 30, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
# XGBoost computes links in single.
EXACT = {"LGBM": 1e-12, "XGBC": 2e-7, "XGBR": 2e-7, "CatB": 1e-12}


def numbers() -> pd.DataFrame:
    """Returns features (400, 5) with nulls, zeros, integers and rounded numbers."""
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "a": rng.normal(size=ROWS),
            "b": rng.normal(size=ROWS) * 1e6,
            "c": rng.integers(0, 6, ROWS).astype(float),
            "d": np.round(rng.normal(size=ROWS), 1),
        }
    )
    frame = frame.mask(rng.random(frame.shape) < 0.1)
    frame["z"] = np.where(rng.random(ROWS) < 0.4, 0.0, rng.normal(size=ROWS))
    return frame


def targets(task: Task) -> Any:
    frame = numbers()
    score = (
        frame["a"].fillna(0) * 2 + frame["b"].fillna(5e5) / 1e6 + frame["c"].fillna(3) ** 2 / 5 + frame["z"]
    )
    if task == "regression":
        return score.to_numpy() + 50_000
    if task == "binary":
        return (score > score.median()).to_numpy()
    return np.digitize(score, score.quantile([0.3, 0.7]))


def numeric_schema() -> DatasetSchema:
    columns = tuple(Column(name, "number", nullable=True) for name in NAMES)
    known = {column.name: seen(column, numbers()[column.name]) for column in columns}
    return DatasetSchema(columns, Column("t", "number")).learn(known)


def fitted(model: Any, task: Task, target: Any = None, **more: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(numbers(), targets(task) if target is None else target, **more)


def compared(model: Any, task: Task, random_rows: int = 300) -> parity.Parity:
    """Compiles a fitted model, checks its graph and returns the comparison."""
    known = numeric_schema()
    graph = compile_pipeline(model, known, task)
    check(graph, known, task, None if task == "regression" else model.classes_.tolist())
    engine = OnnxEngine.from_bytes(graph, known)
    return parity.check(model, engine, known, numbers(), task, seed=1, random_rows=random_rows)


def of(task: Task, regressor: Any, classifier: Any, **more: Any) -> Any:
    return (regressor if task == "regression" else classifier)(**more)


MODELS: dict[str, Callable[[Task], Any]] = {
    "LightGBM": lambda task: of(task, LGBMRegressor, LGBMClassifier, **LGBM),
    "LightGBM, zeros are missing": lambda task: of(
        task, LGBMRegressor, LGBMClassifier, **LGBM, zero_as_missing=True
    ),
    "LightGBM, nothing is missing": lambda task: of(
        task, LGBMRegressor, LGBMClassifier, **LGBM, use_missing=False
    ),
    "LightGBM, a forest": lambda task: of(
        task, LGBMRegressor, LGBMClassifier, **LGBM, boosting_type="rf", subsample=0.7, subsample_freq=1
    ),
    "LightGBM, dart": lambda task: of(task, LGBMRegressor, LGBMClassifier, **LGBM, boosting_type="dart"),
    "XGBoost": lambda task: of(task, XGBRegressor, XGBClassifier, **XGB),
    "XGBoost, leaf by leaf": lambda task: of(
        task, XGBRegressor, XGBClassifier, **XGB, grow_policy="lossguide", max_leaves=9, num_parallel_tree=2
    ),
    "CatBoost": lambda task: of(task, CatBoostRegressor, CatBoostClassifier, **CAT),
    "CatBoost, nulls are large": lambda task: of(
        task, CatBoostRegressor, CatBoostClassifier, **CAT, nan_mode="Max"
    ),
    "CatBoost, leaf by leaf": lambda task: of(
        task, CatBoostRegressor, CatBoostClassifier, **CAT, grow_policy="Lossguide"
    ),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", MODELS)
def test_boosters_answer_alike(name: str, task: Task) -> None:
    model = fitted(MODELS[name](task), task)
    verdict = compared(model, task)
    assert verdict.passed, verdict.reason
    assert verdict.worst is not None
    assert verdict.worst < EXACT[type(model).__name__[:4]]
    assert verdict.edges == verdict.edges_asked > 30, "both sides of every threshold"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["LightGBM", "XGBoost", "CatBoost"])
def test_values_at_and_next_to_thresholds_take_the_librarys_side(name: str, task: Task) -> None:
    model, known = fitted(MODELS[name](task), task), numeric_schema()
    splits, limits = boosted_trees.thresholds(model)
    pairs = np.unique(np.column_stack([splits, limits]), axis=0)[:150]
    rows = []
    with np.errstate(over="ignore"):
        near = neighbours(pairs[:, 1])
    for value in [pairs[:, 1], *near]:
        part = np.tile(numbers().iloc[1].to_numpy(), (len(pairs), 1))
        part[np.arange(len(pairs)), pairs[:, 0].astype(int)] = value
        rows.append(part)
    frame = pd.DataFrame(np.vstack(rows), columns=NAMES)
    compiled = AskedByFrame(OnnxEngine.from_bytes(compile_pipeline(model, known, task), known), known)
    theirs = model.predict(frame) if task == "regression" else model.predict_proba(frame)
    ours = compiled.predict(frame) if task == "regression" else compiled.predict_proba(frame)
    assert len(np.unique(theirs, axis=0)) > 10, "thresholds matter"
    np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=2e-7 if name == "XGBoost" else 1e-15)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["LightGBM", "XGBoost", "CatBoost"])
def test_a_booster_at_the_end_of_a_pipeline_answers_alike(name: str, task: Task) -> None:
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    steps = ColumnTransformer([("numbers", StandardScaler(), NUMBERS), ("texts", encoder, CATEGORIES)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = TARGETS[task]()
        if name == "XGBoost" and task == "multiclass":  # takes numbers as classes, no texts
            target = np.unique(target, return_inverse=True)[1]
        pipeline = make_pipeline(steps, MODELS[name](task)).fit(features(), target)
    graph = compile_pipeline(pipeline, schema(), task)
    check(graph, schema(), task, None if task == "regression" else pipeline.classes_.tolist())
    engine = OnnxEngine.from_bytes(graph, schema())
    verdict = parity.check(pipeline, engine, schema(), features(), task, seed=1, random_rows=300)
    assert verdict.passed, verdict.reason
    assert verdict.edges_asked > 10


OBJECTIVES = {
    **{
        f"LightGBM {name}": lambda name=name: LGBMRegressor(**LGBM, objective=name)
        for name in ("regression_l1", "huber", "fair", "poisson", "quantile", "mape", "gamma", "tweedie")
    },
    "LightGBM of square roots": lambda: LGBMRegressor(**LGBM, reg_sqrt=True),
    **{
        f"XGBoost {name}": lambda name=name: XGBRegressor(**XGB, objective=name)
        for name in ("reg:absoluteerror", "count:poisson", "reg:gamma", "reg:tweedie", "reg:pseudohubererror")
    },
    "XGBoost quantile": lambda: XGBRegressor(**XGB, objective="reg:quantileerror", quantile_alpha=0.7),
    "XGBoost from a base": lambda: XGBRegressor(**XGB, base_score=1_000.5),
    "XGBoost, a forest": lambda: XGBRFRegressor(**XGB),
    "XGBoost without a split": lambda: XGBRegressor(n_estimators=3, gamma=1e15),
    "LightGBM without a split": lambda: LGBMRegressor(n_estimators=3, min_child_samples=ROWS, verbose=-1),
    **{
        f"CatBoost {name}": lambda name=name: CatBoostRegressor(**CAT, loss_function=name)
        for name in ("MAE", "Quantile", "MAPE", "Tweedie:variance_power=1.5", "Huber:delta=1")
    },
    "CatBoost Poisson": lambda: CatBoostRegressor(**CAT, loss_function="Poisson", bootstrap_type="No"),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_answer_alike(name: str) -> None:
    model = OBJECTIVES[name]()
    is_small = name == "CatBoost Poisson"  # its first step is the target itself, in the exponent
    verdict = compared(fitted(model, "regression", targets("regression") - is_small * 49_990), "regression")
    assert verdict.passed, verdict.reason
    assert verdict.worst is not None
    assert verdict.worst < 2e-7


def test_factors_before_a_sigmoid_and_shares_count() -> None:
    for model in (
        LGBMClassifier(**LGBM, sigmoid=2.5),
        XGBClassifier(**XGB, base_score=0.3, scale_pos_weight=3),
        CatBoostClassifier(**CAT, scale_pos_weight=3),
    ):
        verdict = compared(fitted(model, "binary"), "binary")
        assert verdict.passed, verdict.reason


def test_hundreds_of_leaves_are_added_as_xgboost_adds_them() -> None:
    """A sum in double differs."""
    model = fitted(XGBRegressor(n_estimators=400, learning_rate=0.05, n_jobs=1), "regression")
    verdict = compared(model, "regression")
    assert verdict.worst == 0.0


@pytest.mark.parametrize("name", ["LightGBM", "XGBoost", "CatBoost"])
def test_the_best_iteration_is_respected(name: str) -> None:
    held_out = (
        numbers().iloc[:80],
        targets("regression")[:80] + np.random.default_rng(1).normal(size=80) * 3,
    )
    fast = {"learning_rate": 0.5}
    if name == "LightGBM":
        callbacks = [early_stopping(3, verbose=False)]
        model = LGBMRegressor(**(LGBM | {"n_estimators": 300}), **fast)
        fitted(model, "regression", eval_set=[held_out], callbacks=callbacks)
        assert model.best_iteration_ < 200
    elif name == "XGBoost":
        model = XGBRegressor(**(XGB | {"n_estimators": 300}), **fast, early_stopping_rounds=3)
        fitted(model, "regression", eval_set=[held_out], verbose=False)
        assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    else:
        model = CatBoostRegressor(**(CAT | {"iterations": 300}), **fast)
        fitted(model, "regression", eval_set=held_out, early_stopping_rounds=3)
        assert model.tree_count_ < 200
    verdict = compared(model, "regression")
    assert verdict.passed, verdict.reason
    assert verdict.worst == 0.0


# -- what is refused -----------------------------------------------------------------------------------


def with_category() -> pd.DataFrame:
    return numbers().assign(c=pd.Categorical(numbers()["c"].fillna(0).astype(int)))


REFUSED: dict[str, tuple[Callable[[], Any], Task, str]] = {
    "linear leaves": (lambda: LGBMRegressor(**LGBM, linear_tree=True), "regression", "leave out linear_tree"),
    "one against all": (
        lambda: LGBMClassifier(**LGBM, objective="multiclassova"),
        "multiclass",
        "objective multiclassova, which the compiler does not support: use objective='multiclass'",
    ),
    "dart": (lambda: XGBRegressor(**XGB, booster="dart", rate_drop=0.5), "regression", "booster dart"),
    "no trees": (lambda: XGBRegressor(**XGB, booster="gblinear"), "regression", "booster gblinear"),
    "another missing value": (
        lambda: XGBRegressor(**XGB, missing=0.0),
        "regression",
        "takes 0.0 for missing",
    ),
    "an objective of XGBoost": (
        lambda: XGBRegressor(**XGB, objective="survival:cox"),
        "regression",
        "objective survival:cox",
    ),
    "an own objective": (
        lambda: LGBMRegressor(**LGBM, objective=lambda y, p: (p - y, np.ones(len(y)))),
        "regression",
        "objective custom",
    ),
    "a loss of CatBoost": (
        lambda: CatBoostRegressor(**CAT, loss_function="RMSEWithUncertainty"),
        "regression",
        "loss RMSEWithUncertainty",
    ),
    "one against all of CatBoost": (
        lambda: CatBoostClassifier(**CAT, loss_function="MultiClassOneVsAll"),
        "multiclass",
        "loss MultiClassOneVsAll",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name(name: str) -> None:
    build, task, words = REFUSED[name]
    model = fitted(build(), task)
    with pytest.raises(NotConvertible) as refused:
        compile_pipeline(model, numeric_schema(), task)
    assert words in str(refused.value)
    assert str(refused.value).startswith(type(model).__name__)
    assert not len(boosted_trees.thresholds(model)[0])


@pytest.mark.parametrize(
    "model",
    [
        LGBMRegressor(**LGBM, min_data_per_group=1, cat_smooth=0.1),
        XGBRegressor(**XGB, enable_categorical=True),
        CatBoostRegressor(**CAT, cat_features=["c"]),
    ],
    ids=lambda model: type(model).__name__,
)
def test_splits_by_categories_are_refused_with_advice(model: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = numbers()["c"].fillna(0).map({0.0: 1.0, 1.0: 9.0, 2.0: 2.0, 3.0: 8.0}).fillna(5.0)
        model.fit(with_category(), target)
    with pytest.raises(NotConvertible, match="encode them in a step before it"):
        compile_pipeline(model, numeric_schema(), "regression")


def test_the_compiler_imports_none_of_the_libraries() -> None:
    code = (
        "import sys, vigia_ml.engines.onnx_export.compile, vigia_ml.engines.parity\n"
        "assert not {'lightgbm', 'xgboost', 'catboost'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
