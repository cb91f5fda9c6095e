"""The gate sends a candidate requests like those of clients and rejects a candidate that cannot answer."""

from __future__ import annotations

import io
from typing import Any

import pytest

from core.errors import GateNotPassed
from tests.conftest import Post, assert_error
from tests.training.conftest import Declare
from training.models import ModelVersion, TrainingRun
from training.registry import activation, rollouts
from training.runs import requests as run_requests
from training.runs import uploads

pytestmark = pytest.mark.django_db(transaction=True)

DECLARATION = """
import decimal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from vigia_ml.declaration import Gate, ModelDeclaration
from vigia_ml.schema import Column, DatasetSchema

SCHEMA = DatasetSchema(
    columns=(Column("size", "number"), Column("new", "boolean"), Column("kind", "category", nullable=True)),
    target={target},
)


class Own({kind}, BaseEstimator):
    def fit(self, rows, target):
        self.mean_ = 2.0
        self.classes_ = {classes}
        return self

    {method}


def build(seed):
    return Own()


MODEL = ModelDeclaration(
    name="own", title="Own", description="", task="{task}", schema=SCHEMA, build=build,
    primary_metric="{metric}", gate=Gate(), policy="always",
)
"""


def regressor(answer: str) -> str:
    method = f"def predict(self, rows):\n        size = rows['size'].to_numpy() * 2.0\n        {answer}"
    text = DECLARATION.format(
        target='Column("price", "number")', kind="RegressorMixin", classes="[]", method=method,
        task="regression", metric="r2",
    )  # fmt: skip
    return text.replace("        self.classes_ = []\n", "")


def classifier(answer: str, classes: str = "np.array([False, True])") -> str:
    method = (
        "def predict_proba(self, rows):\n"
        "        share = rows['size'].to_numpy() / 100\n"
        "        both = np.column_stack([1 - share, share])\n"
        f"        {answer}"
    )
    return DECLARATION.format(
        target='Column("sold", "boolean")', kind="ClassifierMixin", classes=classes, method=method,
        task="binary", metric="roc_auc",
    )  # fmt: skip


def trained(declare: Declare, text: str, target: str) -> TrainingRun:
    model = declare("own", text)
    kinds = ("a", "b", "")
    lines = [f"{n % 97},{'yes' if n % 2 else 'no'},{kinds[n % 3]}" for n in range(120)]
    values = [
        f"{2 * (n % 97)}" if target == "price" else ("yes" if n % 97 > 48 else "no") for n in range(120)
    ]
    csv = "\n".join([f"size,new,kind,{target}", *map(",".join, zip(lines, values, strict=True))])
    dataset = uploads.from_csv(model, io.BytesIO(f"{csv}\n".encode()), by=None, source="test")
    run = run_requests.request(model, dataset, mode="replace", by=None, activation_reason="wanted")
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    return run


def answers_check_of(version: ModelVersion) -> dict[str, Any]:
    return next(check for check in version.gate["checks"] if check["name"] == "answers")


def test_an_estimator_that_answers_passes_the_check_and_is_activated(declare: Declare, post: Post) -> None:
    run = trained(declare, regressor("return size"), "price")
    assert run.version.status == "active"
    assert (
        answers_check_of(run.version)["message"]
        == "requests by JSON and CSV with 3 hold-out rows give the evaluated answers"
    )
    row = {"size": 21, "new": True, "kind": None}
    assert post("/api/v1/models/own/predictions/", row).json()["predictions"][0]["prediction"] == 42.0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("return size[:, None]", "returns a list for a row instead of a number"),
        ("return np.array([decimal.Decimal(x) for x in size])", "returns a Decimal for a row"),
        ("return np.squeeze(size) if len(size) > 1 else size[0]", "request by JSON with 1 hold-out row"),
        ("return size if len(size) > 3 else size * np.nan", "not finite"),
        ("return size if len(size) > 3 else size[:-1]", "returns 2 answers to 3 rows"),
        (
            "return size - size.mean() + 48 if len(size) < 9 else size",
            "in the evaluation of the whole hold-out",
        ),
        ("return size if len(size) > 1 else undefined", "name 'undefined' is not defined"),
        ("return size if rows.index[-1] > 9 else [str(x) for x in size]", "the version does not answer"),
    ],
    ids=["n by 1", "objects", "a scalar", "NaN", "too few", "otherwise", "an error", "texts"],
)
def test_the_gate_rejects_a_regressor_that_cannot_answer_clients(
    declare: Declare, answer: str, reason: str
) -> None:
    run = trained(declare, regressor(answer), "price")
    assert run.status == "succeeded", run.error
    version = run.version
    assert (version.status, version.gate["passed"], answers_check_of(version)["passed"]) == (
        "candidate",
        False,
        False,
    )
    assert reason in answers_check_of(version)["message"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("return size * np.nan", "predict returns NaN or an infinity for"),
        ("return size[:-1]", "predict returns an array of shape"),
        ("return [object() for _ in size]", "predict returns a list that does not hold numbers"),
        ("return np.column_stack([size, size])", "it must be ("),
        ("return undefined", "NameError: name 'undefined' is not defined (own.py, line"),
    ],
    ids=["NaN", "too few", "objects", "two columns", "an error"],
)
def test_answers_that_cannot_be_evaluated_fail_the_run_with_a_message(
    declare: Declare, answer: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(declare, regressor(answer), "price")
    assert (run.status, ModelVersion.objects.count()) == ("failed", 0)
    assert reason in run.error
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "classes", "reason"),
    [
        ("return both", "np.array([0, 1])", "the version answers 1"),
        ("return both.astype(str) if len(rows) < 9 else both", "np.array([False, True])", "does not answer"),
        ("return both[:, 1:] if len(rows) < 9 else both", "np.array([False, True])", "1 of 2 probabilities"),
        ("return both * 3 if len(rows) < 9 else both", "np.array([False, True])", "its probability is"),
    ],
    ids=["other labels", "texts", "one column", "beyond 1"],
)
def test_the_gate_rejects_a_classifier_that_cannot_answer_clients(
    declare: Declare, answer: str, classes: str, reason: str
) -> None:
    run = trained(declare, classifier(answer, classes), "sold")
    if run.status == "failed":  # the evaluation already rejects labels that are not the target's
        assert "y_true" in run.error or "labels" in run.error, run.error
        return
    assert not answers_check_of(run.version)["passed"]
    assert (
        reason in answers_check_of(run.version)["message"]
        or "the version answers 0" in answers_check_of(run.version)["message"]
    )
    assert run.version.status == "candidate"


def test_no_override_policy_or_canary_makes_an_unusable_version_answer(declare: Declare, post: Post) -> None:
    version = trained(declare, regressor("return size[:, None]"), "price").version
    assert version.status == "candidate", "the policy is always"
    with pytest.raises(GateNotPassed, match="even with an override"):
        activation.activate(version, by=None, reason="I insist", override=True)
    answered = post("/api/v1/models/own/versions/1/activate/", {"reason": "x", "override": True})
    error = answered.json()["error"]
    assert (answered.status_code, error["code"]) == (409, "gate_not_passed")
    assert [check["name"] for check in error["details"]] == ["answers"]
    good = trained(declare, regressor("return size"), "price").version
    assert good.status == "active"
    with pytest.raises(GateNotPassed):
        rollouts.start(version, kind="canary", percent=5, by=None, reason="try", override=True)


def test_a_version_older_than_the_check_is_rejected_without_an_internal_error(
    declare: Declare, post: Post
) -> None:
    version = trained(declare, regressor("return size[:, None]"), "price").version
    ModelVersion.objects.filter(pk=version.pk).update(status="active")
    row = {"size": 21, "new": True, "kind": None}
    error = assert_error(post("/api/v1/models/own/predictions/", row), 400, "prediction_failed")
    assert "returns a list for a row" in error["message"]
    evaluated = post("/api/v1/models/own/evaluations/", {"instances": [row | {"price": 42}]})
    assert_error(evaluated, 400, "prediction_failed")
