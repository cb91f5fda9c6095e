"""A candidate is asked as clients ask before it may be active; what cannot answer is refused in words."""

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


def asked(version: ModelVersion) -> dict[str, Any]:
    return next(check for check in version.gate["checks"] if check["name"] == "answers")


def test_an_estimator_that_answers_is_asked_and_activated(declare: Declare, post: Post) -> None:
    run = trained(declare, regressor("return size"), "price")
    assert run.version.status == "active"
    assert (
        asked(run.version)["message"] == "it answers 3 hold-out rows asked by JSON and CSV as it was measured"
    )
    row = {"size": 21, "new": True, "kind": None}
    assert post("/api/v1/models/own/predictions/", row).json()["predictions"][0]["prediction"] == 42.0


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("return size[:, None]", "returns a list for a row instead of a number"),
        ("return np.array([decimal.Decimal(x) for x in size])", "returns a Decimal for a row"),
        ("return np.squeeze(size) if len(size) > 1 else size[0]", "asked by JSON for 1 hold-out row"),
        ("return size if len(size) > 3 else size * np.nan", "not finite"),
        ("return size if len(size) > 3 else size[:-1]", "returns 2 answers to 3 rows"),
        ("return size - size.mean() + 48 if len(size) < 9 else size", "with the whole hold-out before it"),
        ("return size if len(size) > 1 else undefined", "name 'undefined' is not defined"),
        ("return size if rows.index[-1] > 9 else [str(x) for x in size]", "it does not answer"),
    ],
    ids=["n by 1", "objects", "a scalar", "NaN", "too few", "otherwise", "an error", "texts"],
)
def test_a_regressor_that_cannot_answer_clients_is_refused_by_the_gate(
    declare: Declare, answer: str, why: str
) -> None:
    run = trained(declare, regressor(answer), "price")
    assert run.status == "succeeded", run.error
    made = run.version
    assert (made.status, made.gate["passed"], asked(made)["passed"]) == ("candidate", False, False)
    assert why in asked(made)["message"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("return size * np.nan", "predict returns NaN or an infinity for"),
        ("return size[:-1]", "predict returns an array of shape"),
        ("return [object() for _ in size]", "predict returns a list that does not hold numbers"),
        ("return np.column_stack([size, size])", "it must be ("),
        ("return undefined", "NameError: name 'undefined' is not defined (own.py, line"),
    ],
    ids=["NaN", "too few", "objects", "two columns", "an error"],
)
def test_answers_that_cannot_be_measured_fail_the_run_in_words(
    declare: Declare, answer: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(declare, regressor(answer), "price")
    assert (run.status, ModelVersion.objects.count()) == ("failed", 0)
    assert why in run.error
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "classes", "why"),
    [
        ("return both", "np.array([0, 1])", "it answers 1"),
        ("return both.astype(str) if len(rows) < 9 else both", "np.array([False, True])", "does not answer"),
        ("return both[:, 1:] if len(rows) < 9 else both", "np.array([False, True])", "1 of 2 probabilities"),
        ("return both * 3 if len(rows) < 9 else both", "np.array([False, True])", "its probability is"),
    ],
    ids=["other labels", "texts", "one column", "beyond 1"],
)
def test_a_classifier_that_cannot_answer_clients_is_refused_by_the_gate(
    declare: Declare, answer: str, classes: str, why: str
) -> None:
    run = trained(declare, classifier(answer, classes), "sold")
    if run.status == "failed":  # labels that are none of the target's are known sooner
        assert "y_true" in run.error or "labels" in run.error, run.error
        return
    assert not asked(run.version)["passed"]
    assert why in asked(run.version)["message"] or "it answers 0" in asked(run.version)["message"]
    assert run.version.status == "candidate"


def test_no_override_policy_or_canary_makes_it_answer(declare: Declare, post: Post) -> None:
    made = trained(declare, regressor("return size[:, None]"), "price").version
    assert made.status == "candidate", "the policy is always"
    with pytest.raises(GateNotPassed, match="not even by an override"):
        activation.activate(made, by=None, reason="I insist", override=True)
    answered = post("/api/v1/models/own/versions/1/activate/", {"reason": "x", "override": True})
    error = answered.json()["error"]
    assert (answered.status_code, error["code"]) == (409, "gate_not_passed")
    assert [check["name"] for check in error["details"]] == ["answers"]
    good = trained(declare, regressor("return size"), "price").version
    assert good.status == "active"
    with pytest.raises(GateNotPassed):
        rollouts.start(made, kind="canary", percent=5, by=None, reason="try", override=True)


def test_a_version_from_before_it_was_asked_refuses_and_is_no_internal_error(
    declare: Declare, post: Post
) -> None:
    made = trained(declare, regressor("return size[:, None]"), "price").version
    ModelVersion.objects.filter(pk=made.pk).update(status="active")
    row = {"size": 21, "new": True, "kind": None}
    error = assert_error(post("/api/v1/models/own/predictions/", row), 400, "prediction_failed")
    assert "returns a list for a row" in error["message"]
    evaluated = post("/api/v1/models/own/evaluations/", {"instances": [row | {"price": 42}]})
    assert_error(evaluated, 400, "prediction_failed")
