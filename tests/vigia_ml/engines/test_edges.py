"""Steps that compare are compiled in double or not at all, and both engines predict every edge."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.tree import DecisionTreeClassifier

from tests.conftest import Post
from training import catalogue
from training.models import ModelVersion
from vigia_ml.engines import PARITY_PROTOCOL, edges, parity
from vigia_ml.engines.onnx import OnnxEngine
from vigia_ml.engines.onnx_export.compile import NotConvertible, compile_pipeline
from vigia_ml.engines.selection import choose
from vigia_ml.fitting import fit as fitting
from vigia_ml.schema import Column, DatasetSchema
from vigia_ml.schema.matrix import encode_columns

ROWS = 300


def table() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "score": np.round(rng.random(ROWS), 3),
            "visits": rng.integers(0, 10, ROWS).astype(np.float64),
            "rate": rng.choice([0.1, 0.2, 0.3, 0.1 + 0.2, 0.7], ROWS),
            "amount": np.exp(2.0 * rng.normal(size=ROWS)),
        }
    )


def bought() -> np.ndarray[Any, np.dtype[np.bool_]]:
    frame = table()
    return ((frame["score"] > 0.65) ^ (frame["rate"] > 0.25) ^ (frame["amount"] > 3.0)).to_numpy()


def schema() -> DatasetSchema:
    columns = (
        Column("score", "number", minimum=0, maximum=1),
        Column("visits", "integer", minimum=0, maximum=100),
        Column("rate", "number", minimum=0, maximum=1),
        Column("amount", "number", minimum=0, maximum=1e9),
    )
    frame = table()
    learned = {column.name: fitting.seen(column, frame[column.name]) for column in columns}
    return DatasetSchema(columns, Column("buys", "boolean")).learn(learned)


def on(columns: list[str], step: Any) -> ColumnTransformer:
    return ColumnTransformer(
        [("cut", step, columns), ("rest", "passthrough", ["visits"])], sparse_threshold=0
    )


def binned(**more: Any) -> KBinsDiscretizer:
    return KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf", **more)


def logistic() -> LogisticRegression:
    return LogisticRegression(max_iter=500)


def compared(*steps: Any, rows: int = 100) -> tuple[Any, OnnxEngine, parity.Parity]:
    """Fits and compiles steps; returns the pipeline, the engine and the comparison."""
    pipeline = make_pipeline(*steps).fit(table(), bought())
    engine = OnnxEngine.from_bytes(compile_pipeline(pipeline, schema(), "binary"), schema())
    return pipeline, engine, parity.check(pipeline, engine, schema(), table(), "binary", 1, rows, 0.5)


COMPILED = {
    "a threshold": (on(["score"], Binarizer(threshold=0.7)), logistic()),
    "a threshold behind a scaler": (StandardScaler(), Binarizer(threshold=0.1), logistic()),
    "bins": (on(["score", "amount"], binned()), logistic()),
    "bins behind a scaler": (
        on(["score", "amount"], make_pipeline(MinMaxScaler(), binned(encode="ordinal"))),
        logistic(),
    ),
    "numeric categories, one-hot": (on(["rate"], OneHotEncoder(handle_unknown="ignore")), logistic()),
    "numeric categories, ordinal": (
        on(["rate"], OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)),
        logistic(),
    ),
    "numeric categories, target": (on(["rate"], TargetEncoder()), logistic()),
    "numeric categories that must be known": (on(["rate"], OneHotEncoder()), logistic()),
    "a tree": (RobustScaler(), DecisionTreeClassifier(max_depth=5, random_state=1)),
    "a forest": (RandomForestClassifier(20, random_state=1),),
    "extra trees": (MaxAbsScaler(), ExtraTreesClassifier(10, random_state=1)),
    "histograms": (MinMaxScaler(), HistGradientBoostingClassifier(max_iter=10, random_state=1)),
    "a selector and a forest": (SelectKBest(k=3), RandomForestClassifier(5, random_state=1)),
    "a forest behind sums": (StandardScaler(), PCA(3), RandomForestClassifier(5, random_state=1)),
    "a threshold in naive Bayes": (BernoulliNB(binarize=0.7),),
    "a continuous step of skl2onnx": (GaussianNB(),),
    "calibrated smoothly": (CalibratedClassifierCV(logistic(), cv=2),),
}
LEFT = {
    "neighbours": (KNeighborsClassifier(),),
    "trees in a bag": (BaggingClassifier(n_estimators=2),),
    "calibrated by steps": (CalibratedClassifierCV(logistic(), method="isotonic", cv=2),),
    "a forest that is calibrated": (CalibratedClassifierCV(RandomForestClassifier(2), cv=2),),
    "a tree in a stack": (StackingClassifier([("a", logistic()), ("b", DecisionTreeClassifier())], cv=2),),
    "quantiles with ties": (QuantileTransformer(n_quantiles=20), logistic()),
    "neighbours for nulls": (KNNImputer(), logistic()),
    "a sentinel": (SimpleImputer(missing_values=0.7, add_indicator=True), logistic()),
    "flags of a sentinel": (
        FeatureUnion([("a", MissingIndicator(missing_values=0.7, features="all")), ("b", StandardScaler())]),
        logistic(),
    ),
    "a function with jumps": (FunctionTransformer(np.floor), logistic()),
    "bins of singles": (on(["score"], binned(encode="ordinal", dtype=np.float32)), logistic()),
    "trees behind a step that rounds": (PowerTransformer(), HistGradientBoostingClassifier(max_iter=5)),
}


@pytest.mark.parametrize("name", COMPILED)
def test_a_step_that_compares_is_compiled_in_double(name: str) -> None:
    """The compiled answers are scikit-learn's at every edge that this test knows, ± one double and one
    single."""
    pipeline, engine, verdict = compared(*COMPILED[name])
    assert verdict.passed, verdict.reason
    base = table().iloc[:20]
    for column, values in (("score", [0.7, 0.5]), ("rate", [0.1, 0.3, 0.1 + 0.2, 0.7]), ("visits", [3.0])):
        around = np.array(values)
        if column != "visits":
            around = np.concatenate([around, *edges.neighbours(around)])
        for value in around.tolist():
            frame = base.assign(**{column: value})
            matrix = encode_columns(schema(), {each: frame[each] for each in frame})
            ours = engine.score(matrix).probabilities
            try:
                theirs = pipeline.predict_proba(frame)
            except ValueError:  # a rejected unknown category
                theirs = np.full((len(frame), 2), np.nan)
            np.testing.assert_allclose(ours, theirs, atol=1e-9, err_msg=f"{column} = {value!r}")


@pytest.mark.parametrize("name", LEFT)
def test_scikit_learn_serves_a_step_that_would_compare_rounded_numbers(name: str) -> None:
    pipeline = make_pipeline(*LEFT[name]).fit(table(), bought())
    with pytest.raises(NotConvertible, match=r"^step .* \(\w+\) "):
        compile_pipeline(pipeline, schema(), "binary")


def test_a_logarithm_before_a_tree_is_compared_to_the_last_bit() -> None:
    """numpy's logarithm and ONNX Runtime's are a bit apart; where a split stands on such a bit, the row goes
    the other way."""
    model = HistGradientBoostingClassifier(max_iter=20, random_state=1)
    _, _, verdict = compared(on(["amount"], FunctionTransformer(np.log1p)), model)
    assert verdict.edges_asked > 10
    assert not verdict.passed


# -- the compared rows ---------------------------------------------------------------------------------


def compared_rows(*steps: Any) -> tuple[pd.DataFrame, list[str], edges.EdgeCount]:
    pipeline = make_pipeline(*steps).fit(table(), bought())
    frame, kinds, counted = parity.rows_to_compare(schema(), table(), 1, 50, pipeline)
    return frame, kinds.tolist(), counted


def values(frame: pd.DataFrame, column: str) -> set[float]:
    return set(frame[column])


def test_the_rows_hold_a_threshold_and_its_neighbours_in_double_and_single() -> None:
    frame, kinds, counted = compared_rows(on(["score"], Binarizer(threshold=0.7)), logistic())
    single = np.float32(0.7)
    expected = {
        0.7, float(np.nextafter(0.7, 0)), float(np.nextafter(0.7, 1)), float(single),
        float(np.nextafter(single, np.float32(0))), float(np.nextafter(single, np.float32(1))),
    }  # fmt: skip
    assert expected <= values(frame, "score")
    assert (counted.held, counted.compared) == (1, 1)
    assert any(kind.endswith("at the edge 0.7 of a step") for kind in kinds)


def test_the_rows_hold_every_bin_edge_category_and_split() -> None:
    bins = binned().fit(table()[["amount"]])
    frame, _, _ = compared_rows(on(["amount"], binned()), logistic())
    assert set(bins.bin_edges_[0]) <= values(frame, "amount")
    frame, _, _ = compared_rows(on(["rate"], OneHotEncoder(handle_unknown="ignore")), logistic())
    assert float(np.nextafter(0.3, 0)) in values(frame, "rate")
    forest = RandomForestClassifier(5, random_state=1)
    frame, _, counted = compared_rows(forest)
    fitted = forest.fit(table(), bought())
    for tree in (each.tree_ for each in fitted.estimators_):
        splits = tree.threshold[(tree.children_left >= 0) & (tree.feature == 3)]
        assert set(splits[splits >= 0].tolist()) <= values(frame, "amount")
    assert counted.held == counted.compared > 20


def test_an_edge_behind_scalers_is_found_between_two_doubles() -> None:
    scaler = StandardScaler().fit(table())
    frame, kinds, counted = compared_rows(StandardScaler(), Binarizer(threshold=0.1), logistic())
    rows = [place for place, kind in enumerate(kinds) if kind.startswith("score = ") and "edge 0.1" in kind]
    sorted_values = np.sort(frame["score"].to_numpy()[rows])
    below = (sorted_values - scaler.mean_[0]) / scaler.scale_[0] <= 0.1
    last, first = sorted_values[below].max(), sorted_values[~below].min()
    assert np.nextafter(last, 1.0) == first, "nothing lies between"
    assert counted.compared == 4


def test_an_edge_of_an_integer_column_is_compared_at_whole_numbers() -> None:
    frame, kinds, _ = compared_rows(DecisionTreeClassifier(max_depth=6, random_state=1))
    assert (frame["visits"] % 1 == 0).all()
    assert frame["visits"].between(0, 100).all()
    assert any(kind.startswith("visits = ") and "edge" in kind for kind in kinds)


def test_an_even_vote_of_a_forest_is_decided_as_in_scikit_learn() -> None:
    """Ten trees, each certain: 0.1 summed in another order is not exactly half."""
    frame = pd.DataFrame({"x": np.arange(200.0)})
    rng = np.random.default_rng(1)
    model = RandomForestClassifier(10, random_state=2).fit(frame, rng.random(200) < 0.5)
    column = Column("x", "number", minimum=0, maximum=1000)
    learned = DatasetSchema((column,), Column("y", "boolean"))
    learned = learned.learn({"x": fitting.seen(column, frame["x"])})
    engine = OnnxEngine.from_bytes(compile_pipeline(model, learned, "binary"), learned)
    ours = engine.score(frame.to_numpy()).probabilities
    assert ours is not None
    theirs = model.predict_proba(frame)[:, 1]
    assert (theirs == 0.5).any()
    np.testing.assert_array_equal(ours[:, 1], theirs)


def test_another_decision_does_not_pass_however_small_the_difference() -> None:
    class Nudged:
        text_columns = ()
        classes = (False, True)

        def __init__(self, engine: OnnxEngine) -> None:
            self.engine = engine
            self.classes = engine.classes

        def score(self, matrix: Any, texts: Any = ()) -> Any:
            scored = self.engine.score(matrix, texts)
            scored.probabilities[:, 1] -= 1e-12
            return scored

    model = RandomForestClassifier(10, random_state=2).fit(table(), bought())
    engine = OnnxEngine.from_bytes(compile_pipeline(model, schema(), "binary"), schema())
    ask = (schema(), table(), "binary", 1, 500, 0.5)
    assert parity.check(model, engine, *ask).passed  # type: ignore[arg-type]
    verdict = parity.check(model, Nudged(engine), *ask)  # type: ignore[arg-type]
    assert not verdict.passed
    assert verdict.decided_otherwise > 0
    assert verdict.reason.startswith("the decision differs in ")


def test_the_reason_advises_bounds_for_numbers_without_them() -> None:
    """The largest number overflows in a step, and only one of the engines rejects it."""
    free = DatasetSchema(tuple(Column(each, "number") for each in table()), Column("buys", "boolean"))
    pipeline = make_pipeline(PowerTransformer(), StandardScaler(), logistic()).fit(table(), bought())
    free = free.learn({each.name: fitting.seen(each, table()[each.name]) for each in free.columns})
    choice = choose(pipeline, free, "binary", table().iloc[:50], seed=1)
    assert choice.engine == "sklearn"
    assert "declare bounds (minimum, maximum) of visits" in choice.reason


# -- through the API -----------------------------------------------------------------------------------

DECLARATION = """
from vigia_ml.declaration import Gate, ModelDeclaration
from vigia_ml.schema import Column, DatasetSchema

SCHEMA = DatasetSchema(
    (Column("score", "number", minimum=0), Column("visits", "integer", minimum=0)),
    Column("buys", "boolean"),
)


def build(seed):
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Binarizer

    parts = [("high", Binarizer(threshold=0.7), ["score"]), ("rest", "passthrough", ["visits"])]
    return make_pipeline(ColumnTransformer(parts), LogisticRegression())


MODEL = ModelDeclaration(
    name="shoppers", title="Shoppers", description="", task="binary", schema=SCHEMA, build=build,
    primary_metric="roc_auc", gate=Gate(),
)
"""


@pytest.fixture
def shoppers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transactional_db: None
) -> Iterator[ModelVersion]:
    """Trains and activates a version of a model that cuts at 0.7, from a file."""
    import io

    from training.models import TrainingRun
    from training.registry import activation, lookup
    from training.runs import requests as run_requests
    from training.runs import uploads

    def forget() -> None:
        catalogue.names.cache_clear()
        catalogue.get.cache_clear()
        sys.modules.pop("training.catalogue.shoppers", None)

    home = tmp_path / "catalogue"
    home.mkdir()
    (home / "shoppers.py").write_text(DECLARATION, encoding="utf-8")
    monkeypatch.setattr(catalogue, "HERE", home)
    monkeypatch.setattr(catalogue, "__path__", [str(home)])
    forget()
    rng = np.random.default_rng(1)
    score, visits = np.round(rng.random(800), 6), rng.integers(0, 10, 800)
    buys = rng.random(800) < np.where(score > 0.7, 0.85, 0.2)
    lines = [f"{s},{v},{'yes' if b else 'no'}" for s, v, b in zip(score, visits, buys, strict=True)]
    model = next(row for row in lookup.sync_catalogue() if row.name == "shoppers")
    rows = io.BytesIO("\n".join(["score,visits,buys", *lines]).encode())
    dataset = uploads.from_csv(model, rows, by=None, source="shoppers.csv")
    run = run_requests.request(model, dataset, mode=TrainingRun.Mode.REPLACE, by=None)
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    activation.activate(run.version, by=None, reason="tested at its threshold", override=True)
    yield run.version
    forget()


def test_a_value_at_the_threshold_gets_scikit_learns_answer(shoppers: ModelVersion, post: Post) -> None:
    """0.7 is not above 0.7; in single precision it is, because the threshold is 0.699999988 there."""
    from training import artifacts

    assert shoppers.engine == "onnx", shoppers.engine_reason
    assert shoppers.parity["protocol"] == PARITY_PROTOCOL
    pipeline = artifacts.load_pipeline(shoppers).pipeline
    for score in (0.7, math.nextafter(0.7, 0), math.nextafter(0.7, 1), float(np.float32(0.7))):
        row = {"score": score, "visits": 3}
        answered = post("/api/v1/models/shoppers/predictions/", row)
        assert answered.status_code == 200, answered.content
        [frame] = answered.json()["predictions"]
        expected = pipeline.predict_proba(pd.DataFrame([row]))[0, 1]
        assert frame["probability"] == pytest.approx(expected, abs=1e-12), score
        assert frame["prediction"] is (score > 0.7)
