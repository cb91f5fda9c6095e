"""Errors of a training run are one sentence with advice; the gate warns of contradictory labels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from predictions.models import Prediction
from tests.conftest import Post, assert_error
from tests.training.conftest import Declare
from training.models import ModelVersion
from training.reports import model_card
from training.runs import requests as run_requests
from training.runs import uploads
from vigia_ml import gate as gating
from vigia_ml import notes
from vigia_ml.evaluation import metrics as evaluation

pytestmark = pytest.mark.django_db

DECLARATION = """
from vigia_ml.declaration import Gate, ModelDeclaration
from vigia_ml.schema import Column, DatasetSchema

SCHEMA = DatasetSchema(
    columns=(Column("size", "number", nullable=True), Column("kind", "category", levels=("a", "b"))),
    target=Column("sold", "boolean"),
)


def build(seed):
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
    from sklearn.svm import SVC, LinearSVC

    codes = make_column_transformer((OneHotEncoder(), ["kind"]), ("passthrough", ["size"]))
    return {pipeline}


MODEL = ModelDeclaration(
    name="own", title="Own", description="", task="binary", schema=SCHEMA, build=build,
    primary_metric="roc_auc", policy="always",
)
"""


def rows(blank: bool = False) -> str:
    lines = [
        f"{'' if blank and n % 5 == 0 else n % 97},{'ab'[n % 2]},{'yes' if n % 97 > 48 else 'no'}"
        for n in range(150)
    ]
    return "\n".join(["size,kind,sold", *lines, ""])


@pytest.mark.parametrize(
    ("pipeline", "blank", "error", "advice"),
    [
        ("make_pipeline(codes, SVC())", False, "predict_proba", "SVC(probability=True)"),
        ("make_pipeline(codes, LinearSVC())", False, "predict_proba", "CalibratedClassifierCV"),
        (
            "make_pipeline(codes, FunctionTransformer(lambda x: x), LogisticRegression())",
            False,
            "storing own's pipeline failed",
            "instead of a lambda",
        ),
        (
            'HistGradientBoostingClassifier(categorical_features="from_dtype")',
            False,
            "fit of own's pipeline failed: ValueError",
            "OrdinalEncoder or OneHotEncoder",
        ),
        ("make_pipeline(codes, LogisticRegression())", True, "contains NaN", "put a SimpleImputer before it"),
        (
            'make_pipeline(make_column_transformer(("passthrough", ["sise"])), LogisticRegression())',
            False,
            "ValueError",
            "compare build() with SCHEMA",
        ),
        (
            "LogisticRegression(c=1)",
            False,
            "build() of own failed: TypeError",
            "correct build()'s parameters",
        ),
        (
            "undefined",
            False,
            "build() of own failed: NameError: name 'undefined' is not defined (own.py, line",
            "",
        ),
    ],
    ids=["SVC", "LinearSVC", "lambda", "from_dtype", "NaN", "column", "parameter", "name"],
)
def test_errors_of_a_pipeline_come_with_advice_and_without_a_trace(
    declare: Declare, capsys: pytest.CaptureFixture[str], pipeline: str, blank: bool, error: str, advice: str
) -> None:
    model = declare("own", DECLARATION.format(pipeline=pipeline))
    dataset = uploads.from_csv(model, io.BytesIO(rows(blank).encode()), by=None, source="test")
    run = run_requests.request(model, dataset, mode="replace", by=None)
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "failed"
    assert error in run.error
    assert f"{'What to do: ' if advice else ''}" in run.error
    assert advice in run.error
    message = capsys.readouterr()
    assert "Traceback" not in message.out + message.err


@pytest.mark.django_db(transaction=True)
def test_the_start_reports_the_error_in_one_line_and_serves_the_other_models(
    declare: Declare, settings: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    declare("own", DECLARATION.format(pipeline="make_pipeline(codes, SVC())"))
    first: Path = settings.VAR_DIR / "first-data"
    first.mkdir(parents=True)
    (first / "own.csv").write_text(rows(), encoding="utf-8")
    call_command("bootstrap", "--no-accounts")  # each model in its own process
    out, err = capfd.readouterr()
    [line] = [line for line in err.splitlines() if "own could NOT be trained" in line]
    assert "SVC(probability=True)" in line
    assert "Traceback" not in out + err


# -- the active version and the baseline ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "active", "dummy", "warns"),
    [("roc_auc", 0.2, 0.5, True), ("roc_auc", 0.5, 0.5, True), ("roc_auc", 0.8, 0.5, False),
     ("mae", 9.0, 3.0, True), ("mae", 2.0, 3.0, False)],
)  # fmt: skip
def test_the_gate_warns_when_the_active_version_does_not_beat_the_baseline(
    metric: str, active: float, dummy: float, warns: bool
) -> None:
    check = gating.active_check(metric, active, dummy)
    assert (check.passed, check.warning) == (True, warns)
    verdict = evaluation.check_gate(gating.Gate(), metric, {metric: active}, {metric: dummy}, None, [check])
    assert [note.code for note in notes.of_gate(verdict)] == ["active_beats_baseline"] * warns


def test_the_gate_warns_of_flipped_labels(churn: ModelVersion, admin_client: Client, api: Any) -> None:
    from tests.trained import SAMPLES

    header, *lines = (SAMPLES / "churn.csv").read_text(encoding="utf-8").splitlines()[:901]
    assert header.endswith("Churn") or header.lower().endswith("churn")
    flip = {"Yes": "No", "No": "Yes", "yes": "no", "no": "yes"}
    flipped = [",".join([*line.split(",")[:-1], flip[line.split(",")[-1]]]) for line in lines]
    text = "\n".join([header, *flipped, ""]).encode()
    model = churn.registered_model
    dataset = uploads.from_csv(model, io.BytesIO(text), by=None, source="flipped")
    run = run_requests.request(model, dataset, mode="replace", by=None)
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    version = run.version
    [check] = [each for each in version.gate["checks"] if each["name"] == "active_beats_baseline"]
    assert check["value"] < 0.5
    assert (check["passed"], check["warning"]) == (True, True)
    assert "check their labels" in check["message"]
    shown = api.get(f"/api/v1/models/churn/training-runs/{run.pk}/").json()
    assert ("active_beats_baseline", "warning") in [(each["code"], each["level"]) for each in shown["notes"]]
    assert "Warning: the active version's roc" in model_card.markdown(version)
    for page in (f"trainingrun/{run.pk}", f"modelversion/{version.pk}"):
        assert "check their labels" in admin_client.get(f"/admin/training/{page}/change/").content.decode()


def test_a_good_active_version_gets_no_warning(churn: ModelVersion) -> None:
    from tests.training.runs.test_runs import queued

    run = queued(300, start=601)
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    [check] = [each for each in run.version.gate["checks"] if each["name"] == "active_beats_baseline"]
    assert not check["warning"]
    assert run.notes == []


# -- bodies in other forms -----------------------------------------------------------------------------

PREDICT = "/api/v1/models/churn/predictions/"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "shape",
    [
        "split", "indexed", "instances", "inputs", "inputs by column", "dataframe_split", "dataframe_records",
        "columns", "by index",
    ],
)  # fmt: skip
def test_rows_in_the_wrappers_of_pandas_or_other_servers_are_answered(
    churn: ModelVersion, post: Post, customer: dict[str, Any], shape: str
) -> None:
    other = customer | {"tenure": 3}
    rows = [customer, other]
    split = {"columns": list(customer), "data": [list(customer.values()), list(other.values())]}
    columns = {name: [row[name] for row in rows] for name in customer}
    bodies: dict[str, Any] = {
        "split": split,
        "indexed": split | {"index": [0, 1]},
        "instances": {"instances": rows},
        "inputs": {"inputs": rows},
        "inputs by column": {"inputs": columns},
        "dataframe_split": {"dataframe_split": split},
        "dataframe_records": {"dataframe_records": rows},
        "columns": columns,
        "by index": {name: dict(zip("01", values, strict=True)) for name, values in columns.items()},
    }
    plain = post(PREDICT, rows).json()["predictions"]
    answered = post(PREDICT, bodies[shape])
    assert answered.status_code == 200, answered.content
    given = answered.json()["predictions"]
    assert [each["probability"] for each in given] == [each["probability"] for each in plain]
    assert Prediction.objects.count() == 4


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"schema": {"fields": []}, "data": [{}]}, 'orient="table"'),
        ({"rows": [{}]}, '"rows"'),
        ({"instances": [[1, 2, 3]]}, "objects with the names of the columns, not lists of values"),
        ({"instances": [{}], "signature_name": "x"}, "other fields beside it; leave out signature_name"),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}]}, "tensors"),
        ({"columns": ["tenure"], "data": [[1, 2]]}, 'row 0 of "data" holds 2 values; "columns" has 1 names'),
        ({"columns": ["tenure"], "data": [1]}, 'row 0 of "data" holds no array'),
        ({"columns": [1], "data": [[1]]}, '"columns" must be an array of names'),
        ({"inputs": {"tenure": [1], "gender": ["a", "b"]}}, "the columns have different lengths"),
        ({"inputs": {"tenure": {"0": 1}, "gender": {"1": "a"}}}, "the columns hold different rows"),
    ],
)
def test_wrapped_rows_that_are_not_read_are_refused_with_the_accepted_form(
    churn: ModelVersion, post: Post, body: Any, message: str
) -> None:
    error = assert_error(post(PREDICT, body), 400, "invalid_input")
    assert [fault["code"] for fault in error["details"]] == ["wrapped_rows"]
    assert message in error["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"instances": []}, "empty_array"),
        ({"columns": ["tenure"], "data": []}, "empty_array"),
        ({"inputs": {"tenure": []}}, "empty_array"),
        ({"columns": ["tenure", "tenure"], "data": [[1, 2]]}, "duplicate_field"),
    ],
)
def test_wrapped_rows_without_a_row_or_with_equal_names_are_refused(
    churn: ModelVersion, post: Post, body: Any, code: str
) -> None:
    error = assert_error(post(PREDICT, body), 400, "invalid_input")
    assert [fault["code"] for fault in error["details"]] == [code]


def test_a_fault_in_wrapped_rows_has_the_position_of_its_row(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    body = {"instances": [customer, customer | {"tenure": "x"}]}
    error = assert_error(post(PREDICT, body), 400, "invalid_input")
    assert [(fault["row"], fault["field"]) for fault in error["details"]] == [(1, "tenure")]


@pytest.mark.django_db(transaction=True)
def test_the_index_that_pandas_wrote_is_not_read(
    churn: ModelVersion, post: Post, client: Any, customer: dict[str, Any]
) -> None:
    for name in ("Unnamed: 0", "index", "level_0"):
        for _ in range(3):  # the third body is read by a compiled spelling
            assert post(PREDICT, {name: 7} | customer).status_code == 200
    table = ",".join(["", *customer]) + "\n" + ",".join(map(str, ["0", *customer.values()])) + "\n"
    for text in (table, "Unnamed: 0" + table):
        answered = post(PREDICT, text.encode(), content_type="text/csv")
        assert answered.status_code == 200, answered.content
    named = table.replace("\n0,", "\nx7,")
    error = assert_error(post(PREDICT, named.encode(), content_type="text/csv"), 400, "invalid_input")
    assert "a column without a name holds a value" in error["message"]


def test_training_evaluations_and_outcomes_also_name_the_accepted_form(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    split = {"columns": list(customer), "data": [list(customer.values())]}
    for route, body, send in (
        ("training-runs", split, '{"instances": [{…}, …]}'),
        ("training-runs", {"inputs": [customer]}, '{"instances": [{…}, …]}'),
        ("evaluations", split, '{"instances": [{…}, …]}'),
        ("evaluations", {"dataframe_split": split}, '{"instances": [{…}, …]}'),
        ("outcomes", {"outcomes": [{"key": "a", "actual": True}]}, "the array of outcomes itself"),
        ("outcomes", {"instances": [{"key": "a", "actual": True}]}, "the array of outcomes itself"),
    ):
        error = assert_error(post(f"/api/v1/models/churn/{route}/", body), 400, "invalid_input")
        assert error["details"][0]["code"] == "wrapped_rows"
        assert f"send {send}" in error["message"]


@pytest.mark.django_db(transaction=True)
def test_columns_may_have_the_name_of_a_wrapper(declare: Declare, post: Post) -> None:
    text = DECLARATION.replace('"size"', '"data"').replace('"kind"', '"columns"')
    model = declare("own", text.format(pipeline="make_pipeline(codes, LogisticRegression())"))
    csv = rows().replace("size,kind,sold", "data,columns,sold").encode()
    dataset = uploads.from_csv(model, io.BytesIO(csv), by=None, source="test")
    run = run_requests.request(model, dataset, mode="replace", by=None, activation_reason="wanted")
    assert run_requests.execute(run.pk)
    answered = post("/api/v1/models/own/predictions/", {"data": 90, "columns": "a"})
    assert answered.status_code == 200, answered.content
