"""Trials of graphs from elsewhere, in a real sandbox."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from tests.vigia_ml.engines import hostile
from tests.vigia_ml.engines.hostile import SCHEMA, WIDTH, model, node
from tests.vigia_ml.engines.test_onnx_export import TARGETS, one_hot, prepared
from tests.vigia_ml.tables import features, schema
from vigia_ml.declaration import Task
from vigia_ml.engines.graph_check import BadGraph
from vigia_ml.engines.graph_trial import Trial, checked, tried
from vigia_ml.engines.onnx_export.compile import compile_pipeline
from vigia_ml.fitting.parquet import DatasetWriter
from vigia_ml.schema import DatasetSchema

ROWS = 50
GIB = 1 << 30


def written(path: Path, known: DatasetSchema, frame: pd.DataFrame) -> Path:
    """Writes a hold-out, with a target of zeros."""
    columns: dict[str, list[Any]] = {}
    for column in known.columns:
        values = frame[column.name].astype(object).where(frame[column.name].notna(), None).tolist()
        if column.type == "boolean":
            values = [None if value is None else bool(value) for value in values]
        if column.type == "integer":
            values = [None if value is None else int(value) for value in values]
        columns[column.name] = values
    columns[known.target.name] = [0.0] * len(frame)
    with DatasetWriter(path, known) as writer:
        writer.write_columns(columns, [None] * len(frame))
    return path


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frame = pd.DataFrame(np.random.default_rng(1).normal(size=(ROWS, WIDTH)), columns=list("abcd"))
    return written(tmp_path_factory.mktemp("rows") / "holdout.parquet", SCHEMA, frame)


def ask(made: onnx.ModelProto, holdout: Path, classes: list[Any] | None = None, **more: Any) -> Trial:
    task: Task = "regression" if classes is None else "binary"
    limits: dict[str, Any] = {"most_rows": 100, "seconds": 60, "memory": 2 * GIB} | more
    return tried(made.SerializeToString(), SCHEMA, task, classes, holdout, **limits)


def refusal(made: onnx.ModelProto, holdout: Path, classes: list[Any] | None = None, **more: Any) -> str:
    with pytest.raises(BadGraph) as refused:
        ask(made, holdout, classes, **more)
    return refused.value.message


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_the_answers_are_the_pipelines(task: Task, tmp_path: Path) -> None:
    estimator = Ridge() if task == "regression" else RandomForestClassifier(20, random_state=1)
    pipeline = make_pipeline(prepared(one_hot()), estimator).fit(features(), TARGETS[task]())
    graph = compile_pipeline(pipeline, schema(), task)
    holdout = written(tmp_path / "holdout.parquet", schema(), features())
    classes = None if task == "regression" else pipeline.classes_.tolist()
    trial = tried(graph, schema(), task, classes, holdout, 5_000, workdir=tmp_path)
    answers = pipeline.predict(features())[:, None] if classes is None else pipeline.predict_proba(features())
    np.testing.assert_allclose(trial.answers, answers, rtol=1e-12)
    assert trial.answers.dtype == np.float64
    assert trial.bulk_rows == 5_000
    assert 0 < trial.latency_ms < 100
    assert trial.bulk_seconds > 0
    assert trial.peak_bytes is not None
    assert {"user", "privileges"} <= trial.isolation
    assert [path.name for path in tmp_path.iterdir()] == ["holdout.parquet"], "nothing is left"


def test_a_good_graph_is_tried(rows: Path) -> None:
    assert ask(hostile.good(), rows).answers.shape == (ROWS, 1)


# -- twenty hostile graphs are in test_graph_check; these pass the check or attack its reader --------------


@pytest.mark.parametrize(
    "graph", [b"", b"\x00" * 1_000_000, hostile.nested(200_000), hostile.good().SerializeToString()[:-30]]
)
def test_bytes_that_are_no_graph_are_refused(graph: bytes) -> None:
    with pytest.raises(BadGraph):
        checked(graph, SCHEMA, "regression", None, seconds=30, memory=GIB)


def test_a_loop_is_refused_by_the_child(rows: Path) -> None:
    loop = hostile.operator("Loop", "matrix", body=hostile.subgraph())
    assert "operator Loop" in refusal(loop, rows)


def test_a_graph_that_answers_nan_is_refused(rows: Path) -> None:
    nodes = [node("Log", "matrix", "x"), node("MatMul", "x w", "answer")]
    message = refusal(model(nodes, {"w": np.ones((WIDTH, 1))}), rows)
    assert "of the hold-out gets no finite answer" in message
    assert message.startswith("row ")


def test_an_infinite_answer_is_refused(rows: Path) -> None:
    nodes = [node("Exp", "matrix", "x"), node("Exp", "x", "z"), node("MatMul", "z w", "answer")]
    message = refusal(model([*nodes[:2], nodes[2]], {"w": np.full((WIDTH, 1), 1e308)}), rows)
    assert "no finite answer" in message


def probabilities(*nodes: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    return model(list(nodes), constants, width=2, classes=[False, True])


def test_probabilities_that_do_not_add_up_are_refused(rows: Path) -> None:
    made = probabilities(
        node("Gather", "matrix at", "x", axis=1), node("Sigmoid", "x", "answer"), at=np.array([0, 1])
    )
    assert "add up to" in refusal(made, rows, [False, True])


def test_probabilities_outside_of_0_to_1_are_refused(rows: Path) -> None:
    made = probabilities(
        node("Gather", "matrix at", "x", axis=1),
        node("Sub", "one x", "y"),
        node("Concat", "x y", "answer", axis=1),
        at=np.array([0]),
        one=np.ones(1),
    )
    assert "a probability outside of 0 to 1" in refusal(made, rows, [False, True])


def test_a_graph_that_needs_a_second_a_row_is_refused(rows: Path) -> None:
    started = time.monotonic()
    message = refusal(hostile.slow(300), rows, most_ms=50)
    assert "milliseconds for one row; at most 50 are accepted" in message
    assert time.monotonic() - started < 60


def test_a_graph_whose_largest_request_takes_long_is_refused(rows: Path) -> None:
    message = refusal(hostile.good(), rows, most_rows=10_000, most_bulk_seconds=0.0)
    assert "for 10,000 rows, the largest request; at most 0 are accepted" in message


def test_a_graph_without_end_is_refused(rows: Path) -> None:
    assert refusal(hostile.slow(19_000), rows, seconds=2) == (
        "the graph needs more than 2 seconds for the hold-out"
    )


@pytest.mark.parametrize("times", [14, 17])  # the first would fit in parts
def test_a_graph_that_needs_much_memory_is_refused(rows: Path, times: int) -> None:
    wide = [*hostile.doubled(times), node("ReduceSum", f"v{times} axis", "answer")]
    message = refusal(model(wide, {"axis": np.array([1])}), rows, most_rows=10_000, most_ms=1_000)
    assert message == f"the graph needs more than {2 * GIB:,} bytes of memory"


def test_the_parent_goes_on(rows: Path) -> None:
    for made in (hostile.slow(19_000), hostile.tree(tree_roots=[9])):
        refusal(made, rows, seconds=2)
    assert ask(hostile.good(), rows).answers.shape == (ROWS, 1)


def test_another_hold_out_than_the_schemas_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"PAR1 no rows PAR1")
    assert "trial failed" in refusal(hostile.good(), tmp_path / "rows")
