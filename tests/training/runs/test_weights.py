"""A declared column of weights: uploads, runs, appends, evaluations, comparison, reproduction, requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rest_framework.test import APIClient

from tests.conftest import Post, assert_error
from tests.training.conftest import Declare
from training.jobs import leases
from training.models import Comparison, Dataset, ModelVersion, RegisteredModel, TrainingRun
from training.registry import activation
from training.reports import reproduction
from training.runs import requests as run_requests

pytestmark = pytest.mark.django_db
RUNS = "/api/v1/models/own/training-runs/"
DECLARATION = '''
"""A model with weights."""

from typing import Any

from vigia_ml import Column, DatasetSchema, Gate, ModelDeclaration

SCHEMA = DatasetSchema(
    columns=(Column("x", "number"), Column("town", "category", levels=("a", "b"))),
    target=Column("y", "boolean"),
    weight="w",
)


def build(seed: int) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

    return Pipeline(
        [("columns", ColumnTransformer([("x", "passthrough", ["x"])])), ("model", LogisticRegression())]
    )


MODEL = ModelDeclaration(
    name="own", title="Own", description="Weighted.", task="binary", schema=SCHEMA, build=build,
    primary_metric="roc_auc", gate=Gate(max_regression=0.5, slices={"town": 0.5}),
)
'''


def rows(count: int = 200, start: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(7 + start)
    made = []
    for number in range(start, start + count):
        x = float(rng.normal())
        weight = [0.0, 1.0, 2.5][number % 3]
        made.append({"x": x, "town": "ab"[number % 2], "y": bool(x + rng.normal() * 0.7 > 0), "w": weight})
    return made


@pytest.fixture
def model(declare: Declare) -> RegisteredModel:
    return declare("own", DECLARATION)


def trained(post: Post, body: Any, content_type: str = "application/json", query: str = "") -> ModelVersion:
    answered = post(f"{RUNS}{query}", body, content_type)
    assert answered.status_code == 202, answered.content
    run = TrainingRun.objects.get(pk=answered.json()["id"])
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    return run.version


@pytest.mark.django_db(transaction=True)
def test_a_model_with_weights_lives(model: RegisteredModel, post: Post, api: APIClient) -> None:
    first = trained(post, {"instances": rows()})
    assert first.dataset_schema.weight == "w"
    assert first.engine == "onnx", first.engine_reason
    assert first.evaluation is not None
    counts = np.array(first.evaluation["confusion"]["counts"])
    assert counts.sum() != first.holdout_rows, "the confusion holds sums of weights"
    activation.activate(first, by=None, reason="first")

    text = "x,town,y,w\n" + "".join(f"{r['x']!r},{r['town']},{r['y']},{r['w']}\n" for r in rows(100, 500))
    second = trained(post, text, "text/csv", "?mode=append")
    assert second.dataset.rows == 300
    assert second.gate["compared_with"] == first.number
    assert second.gate["passed"], second.gate

    same = reproduction.reproduce(second)
    assert same.reproduced and same.metrics.difference == 0.0

    asked = {"x": 0.5, "town": "a"}
    plain = post("/api/v1/models/own/predictions/", asked)
    assert plain.status_code == 200, plain.content
    with_weight = post("/api/v1/models/own/predictions/", asked | {"w": 3, "y": True})
    ours, theirs = (each.json()["predictions"][0] for each in (with_weight, plain))
    assert ours["probability"] == theirs["probability"]
    assert post("/api/v1/models/own/predictions/", asked | {"w": "?"}).status_code == 200


def test_labelled_rows_are_weighted_where_they_have_weights(model: RegisteredModel, post: Post) -> None:
    activation.activate(trained(post, {"instances": rows()}), by=None, reason="first")
    route = "/api/v1/models/own/evaluations/"
    labelled = rows(60, 900)
    bare = [{name: value for name, value in row.items() if name != "w"} for row in labelled]
    ones = [row | {"w": 1} for row in bare]
    weighted = post(route, {"instances": labelled}).json()["metrics"]
    assert (
        post(route, {"instances": bare}).json()["metrics"]
        == post(route, {"instances": ones}).json()["metrics"]
    )
    assert weighted != post(route, {"instances": bare}).json()["metrics"]
    text = "x,town,y\n" + "".join(f"{r['x']!r},{r['town']},{r['y']}\n" for r in bare)
    assert (
        post(route, text, "text/csv").json()["metrics"] == post(route, {"instances": ones}).json()["metrics"]
    )
    zero = [row | {"w": 0} for row in bare]
    error = assert_error(post(route, {"instances": zero}), 400, "invalid_input")
    assert error["details"][0]["code"] == "all_weights_zero"


def test_bad_weights_are_named_by_row_and_nothing_is_kept(model: RegisteredModel, post: Post) -> None:
    good = rows(5)
    bad = [
        good[0],
        good[1] | {"w": -1},
        good[2] | {"w": None},
        {k: v for k, v in good[3].items() if k != "w"},
    ]
    error = assert_error(post(RUNS, {"instances": bad}), 400, "invalid_input")
    assert [(fault["row"], fault["field"]) for fault in error["details"]] == [(1, "w"), (2, "w"), (3, "w")]
    error = assert_error(post(RUNS, "x,town,y,w\n1,a,yes,-0.5\n", "text/csv"), 400, "invalid_input")
    assert (error["details"][0]["line"], error["details"][0]["code"]) == (2, "out_of_bounds")
    error = assert_error(post(RUNS, "x,town,y\n1,a,yes\n", "text/csv"), 400, "invalid_input")
    assert error["details"][0]["code"] == "missing_column"
    assert not Dataset.objects.exists()


def test_a_class_without_weight_fails_the_run_in_words(model: RegisteredModel, post: Post) -> None:
    light = [row | {"w": 0.0 if row["y"] else 1.0} for row in rows()]
    run = TrainingRun.objects.get(pk=post(RUNS, {"instances": light}).json()["id"])
    run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "failed"
    assert "all rows of class True in the training part have the weight 0" in run.error


def test_an_estimator_without_weights_fails_the_run_in_words(declare: Declare, post: Post) -> None:
    declare(
        "own",
        DECLARATION.replace(
            "linear_model import LogisticRegression", "neighbors import KNeighborsClassifier"
        ).replace("LogisticRegression()", "KNeighborsClassifier()"),
    )
    run = TrainingRun.objects.get(pk=post(RUNS, {"instances": rows()}).json()["id"])
    run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "failed"
    assert "KNeighborsClassifier accepts no sample weights" in run.error


def test_two_weighted_versions_are_compared_on_the_weighted_hold_out(
    model: RegisteredModel, post: Post
) -> None:
    before = trained(post, {"instances": rows(), "mode": "replace"})
    after = trained(post, {"instances": rows(240, 300), "mode": "replace"})
    answered = post(f"/api/v1/models/own/versions/{after.number}/comparisons/", {"with": before.number})
    assert answered.status_code == 202, answered.content
    assert leases.execute(Comparison, answered.json()["id"])
    job = Comparison.objects.get()
    assert job.status == "succeeded", job.error
    assert job.result is not None
    assert job.result["holdout"]["same_metrics"]


@pytest.mark.django_db(transaction=True)
def test_rows_out_of_the_log_count_once(
    model: RegisteredModel, post: Post, api: APIClient, tmp_path: Path
) -> None:
    from predictions.outcomes import training_source
    from vigia_ml.fitting import parquet

    activation.activate(trained(post, {"instances": rows()}), by=None, reason="first")
    asked = [{"x": float(number), "town": "a"} for number in range(3)]
    made = [post("/api/v1/models/own/predictions/", row).json() for row in asked]
    sent = [{"prediction": each["predictions"][0]["id"], "actual": True} for each in made]
    assert post("/api/v1/models/own/outcomes/", sent).status_code == 200
    schema = model.active_version.dataset_schema  # type: ignore[union-attr]
    path = tmp_path / "rows.parquet"
    training_source.collect(model, schema, {"kind": "outcomes"}, path)
    assert parquet.read_frame(path, schema)["w"].tolist() == [1.0] * 3


def test_the_rows_of_a_push_are_weighted(api: APIClient, tmp_path: Path) -> None:
    from dataclasses import replace

    import pyarrow as pa
    import pyarrow.parquet as pq

    from tests.pushed import HELD, Package, execute
    from vigia_ml.evaluation import metrics as evaluation

    package = Package(tmp_path)
    package.schema = replace(package.schema, weight="times")
    package.manifest["schema"] = package.schema.to_json()
    weights = (np.arange(HELD) % 3).astype(np.float64)
    for part in ("train", "holdout"):
        table = pq.read_table(package.file(part))
        times = pa.array(weights if part == "holdout" else np.ones(table.num_rows))
        pq.write_table(table.add_column(table.num_columns - 1, "times", times), package.file(part))
    version = execute(package.send(api, "penguins")).version
    assert version is not None
    score = evaluation.score("multiclass", package.pipeline, package.held_x, package.held_y, 0.5, weights)
    assert version.metrics == pytest.approx(score, abs=1e-9)
    assert version.dataset_schema.weight == "times"
    held = reproduction.divided(version).held_w
    assert held is not None
    assert held.tolist() == weights.tolist()

    negative = pq.read_table(package.file("train"))
    place = negative.column_names.index("times")
    worse = negative.set_column(place, "times", pa.array(-np.ones(negative.num_rows)))
    pq.write_table(worse, package.file("train"))
    assert "times must be at least 0" in execute(package.send(api, "penguins")).error
