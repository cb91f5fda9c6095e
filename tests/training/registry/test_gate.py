"""The gate's checks of engine, latency and slices, and the record of an override."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import Post
from tests.trained import train_sample
from tests.vigia_ml import tables
from training import catalogue
from training.jobs import leases
from training.models import Activation, ModelVersion, TrainingRun
from vigia_ml import gate as gating
from vigia_ml.declaration import Gate
from vigia_ml.engines.latency import Latency, measure, rows_of
from vigia_ml.engines.parity import Parity
from vigia_ml.engines.selection import Choice
from vigia_ml.engines.sklearn import SklearnEngine
from vigia_ml.evaluation import Answers
from vigia_ml.evaluation import metrics as evaluation


def parity(worst: float | None, *, passed: bool) -> Parity:
    return Parity(passed, 1e-6, "absolute", worst, "a random row", 100, 0, 0, 0, 0, 0.1)


def test_a_compiled_engine_passes_with_its_parity() -> None:
    check = gating.engine_check(Gate(), Choice("onnx", "compiled", b"", parity(2e-9, passed=True)))
    assert (check.passed, check.value, check.threshold) == (True, 2e-9, 1e-6)
    assert "onnx serves it: absolute difference 2.0e-09" in check.message


def test_scikit_learn_passes_unless_the_gate_requires_a_compiled_engine() -> None:
    differs = Choice("sklearn", "the compiled engine gives other answers", parity=parity(0.3, passed=False))
    allowed = gating.engine_check(Gate(), differs)
    assert (allowed.passed, allowed.value) == (True, None)
    assert "scikit-learn itself serves it" in allowed.message
    refused = gating.engine_check(Gate(engine="onnx"), differs)
    assert (refused.passed, refused.value) == (False, 0.3)
    assert "requires the engine onnx" in refused.message


@pytest.mark.parametrize(("median", "passed"), [(9.9, True), (10.0, True), (10.1, False)])
def test_the_median_latency_is_compared_with_the_declared_limit(median: float, passed: bool) -> None:
    check = gating.latency_check(Gate(max_latency_ms=10), Latency("onnx", median, 12.0, 300))
    assert (check.passed, check.value, check.threshold) == (passed, median, 10)


def test_latency_is_measured_on_rows_in_the_form_of_requests() -> None:
    schema = tables.schema()
    rows = rows_of(schema, tables.features())
    assert len(rows) == 50
    for row in rows:
        assert not isinstance(schema.read(row), list), "every row is one a client could send"
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline

    keeps = make_column_transformer(("passthrough", ["count"]))
    pipeline = make_pipeline(keeps, LinearRegression()).fit(tables.features(), tables.prices())
    latency = measure(SklearnEngine(pipeline, schema), rows)
    assert latency.engine == "sklearn"
    assert 0 < latency.median_ms <= latency.p95_ms
    assert 10 <= latency.calls <= 300


def answers(score: Any, truth: Any) -> Answers:
    score = np.asarray(score, dtype=float)
    return Answers("binary", np.asarray(truth), 0.5, (False, True), np.column_stack([1 - score, score]))


def halves() -> tuple[pd.DataFrame, Any, Any]:
    """200 rows of two towns, with a score that ranks them perfectly."""
    features = pd.DataFrame({"town": ["here"] * 100 + ["there"] * 100})
    truth = np.arange(200) % 2 == 0
    return features, truth, truth * 0.5 + 0.25


def test_a_slice_that_falls_too_far_fails_although_the_whole_hold_out_passes() -> None:
    features, truth, good = halves()
    poor = good.copy()
    poor[100:120] = 1 - poor[100:120]  # a fifth of one town the wrong way round
    gate = Gate(slices={"town": 0.05})
    checks = gating.slice_checks(gate, "roc_auc", features, answers(poor, truth), answers(good, truth))
    assert [(check.name, check.passed) for check in checks] == [
        ("slice_town:here", True),
        ("slice_town:there", False),
    ]
    assert checks[1].value == pytest.approx(0.8)
    assert checks[1].threshold == pytest.approx(0.95)
    assert "more than the allowed fall of 5%" in checks[1].message
    by_accuracy = replace(gate, slice_metric="accuracy")
    [_, there] = gating.slice_checks(
        by_accuracy, "roc_auc", features, answers(poor, truth), answers(good, truth)
    )
    assert there.message.startswith("town = there: accuracy 0.8")
    verdict = evaluation.check_gate(
        gate, "roc_auc", {"roc_auc": 0.9}, {"roc_auc": 0.5}, {"roc_auc": 0.9}, checks
    )
    assert not verdict["passed"]


@pytest.mark.parametrize(
    ("towns", "truth", "reason"),
    [
        (["here"] * 151 + ["there"] * 49, np.arange(200) % 2 == 0, "49 rows are too few"),
        (["here"] * 100 + ["there"] * 100, np.arange(200) < 50, "its 100 rows are of one class"),
        (["here"] * 100 + ["there"] * 100, np.arange(200) > 190, "only 9 of its 100 rows are of a second"),
    ],
)
def test_a_slice_with_too_little_data_is_not_judged_and_passes(
    towns: list[str], truth: Any, reason: str
) -> None:
    features = pd.DataFrame({"town": towns})
    worse, good = answers(1 - truth * 0.5, truth), answers(truth * 0.5 + 0.25, truth)
    checks = gating.slice_checks(Gate(slices={"town": 0.0}), "roc_auc", features, worse, good)
    there = next(check for check in checks if check.name == "slice_town:there")
    assert (there.passed, there.value, there.threshold) == (True, None, None)
    assert "is not judged" in there.message
    assert reason in there.message


def test_the_error_of_a_slice_must_not_grow() -> None:
    features = pd.DataFrame({"town": ["here"] * 60})
    truth = np.linspace(1, 2, 60)
    ours = Answers("regression", truth, predicted=truth + 1.2)
    theirs = Answers("regression", truth, predicted=truth + 1.0)
    for allowed, passed in ((0.25, True), (0.1, False)):
        gate = Gate(slices={"town": allowed}, slice_metric="mae")
        [check] = gating.slice_checks(gate, "r2", features, ours, theirs)
        assert (check.passed, check.threshold) == (passed, pytest.approx(1 + allowed))


@pytest.mark.parametrize(
    "gate",
    [Gate(slices={"tenure": 0.1}), Gate(slices={"nothing": 0.1}), Gate(slice_metric="r2"), Gate({"r2": 1})],
)
def test_an_invalid_gate_is_rejected_at_its_declaration(gate: Gate) -> None:
    with pytest.raises(ValueError, match="churn: "):
        replace(catalogue.get("churn"), gate=gate)


@pytest.mark.django_db
def test_a_failed_check_blocks_the_policy_and_an_override_is_recorded(
    churn: ModelVersion, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The declaration requires an unreachable latency; the run is real."""
    model = churn.registered_model
    model.policy = "if_better"
    model.save()
    declared = catalogue.get("churn")
    strict = replace(declared, gate=replace(declared.gate, max_latency_ms=1e-9))
    monkeypatch.setattr(catalogue, "get", lambda name: strict)
    run = TrainingRun.objects.create(registered_model=model, upload=churn.dataset, stage="queued")
    assert leases.execute(TrainingRun, run.pk)
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    version = run.version
    assert [check["name"] for check in version.gate["checks"] if not check["passed"]] == ["latency"]
    assert (version.status, model.active_version) == ("candidate", churn)
    url = f"/api/v1/models/churn/versions/{version.number}/activate/"
    refused = post(url, {"reason": "it is quick enough"})
    assert refused.status_code == 409
    error = refused.json()["error"]
    assert (error["code"], error["details"][0]["name"]) == ("gate_not_passed", "latency")
    body = post(url, {"reason": "it is quick enough", "override": True}).json()
    assert (body["overridden"], body["reason"]) == (True, "it is quick enough")
    row = Activation.objects.latest()
    assert (row.version, row.overridden, row.reason) == (version, True, "it is quick enough")
    assert row.gate == version.gate
    assert row.actor is not None


def test_the_answers_of_the_baseline_are_stored(db: None) -> None:
    assert evaluation.prior("regression", pd.Series([1.0, 3.0])) == {"mean": 2.0}
    assert evaluation.prior("binary", pd.Series([True, False, False, False])) == {
        "classes": [False, True],
        "shares": [0.75, 0.25],
    }
    assert train_sample("churn", rows=600).evaluation["prior"]["classes"] == [False, True]
