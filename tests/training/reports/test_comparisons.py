"""Evaluations, comparisons and model cards over HTTP."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from rest_framework.test import APIClient

from predictions.models import Prediction
from tests.conftest import Post, assert_error, keyed
from tests.trained import SAMPLES, train_sample
from training.jobs import leases
from training.models import Comparison, Dataset, ModelVersion, TrainingRun
from training.reports import comparison_requests, model_card, side_by_side

EVALUATIONS = "/api/v1/models/churn/evaluations/"
COMPARISONS = "/api/v1/models/churn/versions/2/comparisons/"
pytestmark = pytest.mark.django_db


def labelled(start: int = 800, rows: int = 150) -> bytes:
    lines = (SAMPLES / "churn.csv").read_bytes().splitlines(keepends=True)
    return b"".join([lines[0], *lines[start : start + rows]])


def instances(customer: dict[str, Any], count: int = 40) -> list[dict[str, Any]]:
    return [{**customer, "tenure": 1 + n % 60, "churn": n % 3 == 0} for n in range(count)]


# -- evaluations ---------------------------------------------------------------------------------------


def test_labelled_rows_are_evaluated_with_intervals_beside_the_baseline(
    churn: ModelVersion, post: Post
) -> None:
    before = (Dataset.objects.count(), TrainingRun.objects.count())
    answered = post(EVALUATIONS, labelled(), "text/csv")
    assert answered.status_code == 200, answered.content
    result = answered.json()
    assert (result["model"], result["version"], result["rows"], result["notes"]) == ("churn", 1, 150, [])
    assert set(result["metrics"]) == set(churn.metrics)
    low, high = result["intervals"]["roc_auc"]
    assert low < result["metrics"]["roc_auc"] < high
    assert result["baseline"]["roc_auc"] == 0.5
    assert result["metrics"]["log_loss"] < result["baseline"]["log_loss"]
    assert sum(map(sum, result["confusion"]["counts"])) == 150
    assert (Dataset.objects.count(), TrainingRun.objects.count()) == before
    assert not Prediction.objects.exists(), "nothing was asked for as a prediction"


def test_an_evaluation_measures_what_scikit_learn_measures(churn: ModelVersion, post: Post) -> None:
    import io

    from training import artifacts
    from vigia_ml.evaluation import metrics as evaluation
    from vigia_ml.fitting import frames
    from vigia_ml.schema.csv_reader import CsvReader

    schema = churn.dataset_schema
    rows = [
        row
        for batch in CsvReader(io.BytesIO(labelled()), schema, with_target=True).batches()
        for row in batch.instances(schema)
    ]
    frame = frames.from_values(schema, [row.values for row in rows])
    pipeline = artifacts.load_pipeline(churn).pipeline
    expected = evaluation.score("binary", pipeline, frame, [row.target for row in rows], 0.5)
    assert post(EVALUATIONS, labelled(), "text/csv").json()["metrics"] == pytest.approx(expected, rel=1e-5)


def test_json_and_csv_of_one_version_or_another(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    train_sample("churn", rows=600, activate=False)
    rows = instances(customer)
    text = "\n".join([",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)])
    by_json = post(f"{EVALUATIONS}?version=2", {"instances": rows}).json()
    by_csv = post(f"{EVALUATIONS}?version=2", text, "text/csv").json()
    assert by_json == by_csv
    assert by_json["version"] == 2


def test_metrics_that_few_rows_do_not_define_are_null_with_a_note(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    result = post(EVALUATIONS, {"instances": [{**customer, "churn": True}]}).json()
    assert result["metrics"]["roc_auc"] is None
    assert result["metrics"]["accuracy"] == 1.0
    assert set(result["intervals"].values()) == {None}
    assert "roc_auc: null, because all rows have the same target" in result["notes"][0]
    alike = post(EVALUATIONS, {"instances": [{**customer, "churn": False}] * 30}).json()
    assert alike["metrics"]["roc_auc"] is None
    assert alike["intervals"]["roc_auc"] is None
    assert alike["intervals"]["brier"] is not None


def test_every_bad_labelled_row_is_named(churn: ModelVersion, post: Post, customer: dict[str, Any]) -> None:
    rows = [{**customer, "churn": True}, customer, {**customer, "tenure": "x", "churn": 1}, 7]
    error = assert_error(post(EVALUATIONS, {"instances": rows}), 400, "invalid_input")
    assert {(fault["row"], fault["code"]) for fault in error["details"]} == {
        (1, "missing_field"),
        (2, "not_an_integer"),
        (3, "not_an_object"),
    }
    lacking = labelled().replace(b"Churn", b"ignored_label", 1).replace(b"churn", b"ignored_label", 1)
    assert_error(post(EVALUATIONS, lacking, "text/csv"), 400, "invalid_input")


@pytest.mark.parametrize(
    "body", [[], 1, {}, {"instances": []}, {"instances": {}}, {"instances": [{}], "x": 1}], ids=repr
)
def test_an_invalid_evaluation_request_is_rejected(churn: ModelVersion, post: Post, body: Any) -> None:
    assert post(EVALUATIONS, body).status_code == 400


def test_evaluations_are_limited_and_need_a_version_and_the_right(
    churn: ModelVersion, post: Post, customer: dict[str, Any], settings: Any
) -> None:
    rows = {"instances": instances(customer, 5)}
    assert_error(post(f"{EVALUATIONS}?version=7", rows), 404, "unknown_version")
    assert_error(post(f"{EVALUATIONS}?version=x", rows), 400, "invalid_input")
    assert_error(post("/api/v1/models/houses/evaluations/", rows), 503, "no_active_version")
    settings.PREDICT_MAX_ROWS = 4
    assert_error(post(EVALUATIONS, rows), 413, "too_many_rows")
    reader = User.objects.create_user("reader")
    reader.user_permissions.add(Permission.objects.get(codename="predict"))
    client = keyed(reader)
    assert_error(client.post(EVALUATIONS, rows, format="json"), 403, "forbidden")


def test_a_regression_is_evaluated_in_its_unit(db: None, post: Post) -> None:
    version = train_sample("houses", rows=300)
    lines = (SAMPLES / "houses.csv").read_bytes().splitlines(keepends=True)
    url = "/api/v1/models/houses/evaluations/"
    result = post(url, b"".join([lines[0], *lines[400:500]]), "text/csv").json()
    assert result["metrics"]["rmse"] < result["baseline"]["rmse"]
    assert result["confusion"] is None
    one = post(url, b"".join([lines[0], lines[400]]), "text/csv").json()
    assert one["metrics"]["r2"] is None
    assert one["metrics"]["mae"] == pytest.approx(one["metrics"]["rmse"])
    card = model_card.markdown(version)
    assert "of the rows at most" in card


# -- comparisons ---------------------------------------------------------------------------------------


@pytest.fixture
def pair(churn: ModelVersion) -> tuple[ModelVersion, ModelVersion]:
    return churn, train_sample("churn", rows=600, activate=False)


def test_two_versions_are_compared_on_the_later_ones_hold_out(
    pair: tuple[ModelVersion, ModelVersion], post: Post, api: APIClient
) -> None:
    second = pair[1]
    response = post(COMPARISONS, {"with": 1})
    assert response.status_code == 202, response.content
    body = response.json()
    assert (body["status"], body["before"], body["after"], body["result"]) == ("queued", 1, 2, None)
    assert response.headers["Location"].endswith(f"{COMPARISONS}{body['id']}/")
    again = post("/api/v1/models/churn/versions/1/comparisons/", {"with": 2})
    assert again.json()["id"] == body["id"], "one comparison per pair, in either order"
    assert leases.execute(Comparison, body["id"])
    job = api.get(response.headers["Location"]).json()
    assert (job["status"], job["error"]) == ("succeeded", "")
    result = job["result"]
    assert result["rows"] == second.holdout_rows
    assert result["after"]["metrics"] == pytest.approx(second.metrics, rel=1e-6)
    assert result["holdout"]["same_metrics"] is True
    assert result["holdout"]["trained_on"] == 0
    assert result["differences"]["roc_auc"] == {"value": 0.0, "interval": [0.0, 0.0]}, "the same artifact"
    assert result["schema"] == []
    assert "training run" in {change["name"] for change in result["lineage"]}
    assert {row["column"] for row in result["before"]["slices"]} == {"contract"}
    finished = post(COMPARISONS, {"with": 1}, Prefer="wait=5")
    assert (finished.status_code, finished.json()["id"]) == (201, body["id"])
    assert Comparison.objects.count() == 1


def test_a_version_of_more_rows_is_compared_on_rows_that_neither_was_trained_on(churn: ModelVersion) -> None:
    more = train_sample("churn", rows=900, activate=False)
    assert more.holdout_rows > churn.holdout_rows
    job, _ = comparison_requests.request(more, churn, by=None)
    assert leases.execute(Comparison, job.pk)
    job.refresh_from_db()
    assert job.status == "succeeded", job.error
    result = job.result
    assert (result["before"]["version"], result["after"]["version"]) == (1, 2)
    assert (result["rows"], result["holdout"]["trained_on"]) == (more.holdout_rows, 0)
    assert result["holdout"]["same_metrics"]
    change = result["differences"]["log_loss"]
    assert change["value"] != 0
    assert change["interval"][0] < change["value"] < change["interval"][1]
    assert {"dataset", "dataset rows", "training rows"} <= {item["name"] for item in result["lineage"]}


def test_training_rows_of_the_earlier_version_are_counted(
    pair: tuple[ModelVersion, ModelVersion],
) -> None:
    """Another seed holds out other rows, most of them from the earlier version's training part."""
    first = pair[0]
    moved = copy.deepcopy(first.evaluation)
    moved["split"]["seed"] = 99
    other = train_sample("churn", rows=600, activate=False, evaluation=moved)
    from training.reports.comparison_job import _overlap
    from training.reports.reproduction import divided

    rows = divided(other)
    other.train_rows = len(rows.train_x)
    holdout = _overlap(first, rows)
    assert 0.6 < holdout["trained_on"] / len(rows.held_x) < 1.0
    assert "its metrics here are optimistic" in holdout["note"]


def test_an_impossible_comparison_fails_with_a_message(
    pair: tuple[ModelVersion, ModelVersion],
) -> None:
    moved = copy.deepcopy(pair[0].evaluation)
    moved["split"]["share"] = 0.5
    third = train_sample("churn", rows=600, activate=False, evaluation=moved)
    job, new = comparison_requests.request(pair[0], third, by=None)
    assert new
    assert leases.execute(Comparison, job.pk)
    job.refresh_from_db()
    assert (job.status, "cannot recreate the hold-out" in job.error) == ("failed", True)
    retried, new = comparison_requests.request(pair[0], third, by=None)
    assert new, "a failed one does not stand in the way"
    assert retried.pk != job.pk


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_input"),
        ([], 400, "not_an_object"),
        ({"with": "1"}, 400, "invalid_input"),
        ({"with": True}, 400, "invalid_input"),
        ({"with": 9}, 404, "unknown_version"),
        ({"with": 2}, 409, "conflict"),
    ],
    ids=repr,
)
def test_an_invalid_comparison_request_is_rejected(
    pair: tuple[ModelVersion, ModelVersion], post: Post, body: Any, status: int, code: str
) -> None:
    assert_error(post(COMPARISONS, body), status, code)
    assert not Comparison.objects.exists()


def test_a_comparison_needs_the_right_and_is_listed_only_below_its_versions(
    pair: tuple[ModelVersion, ModelVersion], api: APIClient
) -> None:
    job, _ = comparison_requests.request(*pair, by=None)
    assert api.get(f"/api/v1/models/churn/versions/1/comparisons/{job.pk}/").status_code == 200
    train_sample("churn", rows=600, activate=False)
    assert_error(api.get(f"/api/v1/models/churn/versions/3/comparisons/{job.pk}/"), 404, "not_found")
    reader = User.objects.create_user("reader")
    reader.user_permissions.add(Permission.objects.get(codename="read_log"))
    client = keyed(reader)
    assert client.get(f"{COMPARISONS}{job.pk}/").status_code == 200
    assert_error(client.post(COMPARISONS, {"with": 1}, format="json"), 403, "forbidden")


# -- stored evaluations --------------------------------------------------------------------------------


def test_a_run_stores_the_evaluation_and_the_gate_checks_engine_and_latency(
    churn: ModelVersion, api: APIClient
) -> None:
    shown = api.get("/api/v1/models/churn/versions/1/").json()
    evaluation = shown["evaluation"]
    assert evaluation["metrics"] == pytest.approx(churn.metrics, rel=1e-6)
    assert evaluation["rows"] == churn.holdout_rows
    assert evaluation["latency"]["engine"] == churn.engine == "onnx"
    assert evaluation["split"] == {
        "seed": 4,
        "share": 0.2,
        "distinct": False,
        "method": "by_features",
        "by_row_from": None,
    }
    assert {item["column"] for item in evaluation["importance"]["columns"]} == set(churn.dataset_schema.names)
    checks = {check["name"]: check for check in churn.gate["checks"]}
    assert checks["parity"]["passed"]
    assert checks["parity"]["value"] <= checks["parity"]["threshold"] == 1e-6
    assert checks["latency"]["value"] == evaluation["latency"]["median_ms"]
    assert not [name for name in checks if name.startswith("slice_")], "there was nothing to fall below"


def test_the_gate_compares_the_next_run_slice_by_slice_with_the_active_version(churn: ModelVersion) -> None:
    run = TrainingRun.objects.create(
        registered_model=churn.registered_model, upload=churn.dataset, stage="queued"
    )
    assert leases.execute(TrainingRun, run.pk)
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    checks = {check["name"]: check for check in run.version.gate["checks"]}
    monthly = checks["slice_contract:month-to-month"]
    assert monthly["passed"]
    assert monthly["value"] is not None
    assert "not judged" in checks["slice_contract:two_year"]["message"]
    assert run.version.gate["passed"]


# -- the card ------------------------------------------------------------------------------------------


def test_a_card_has_all_sections_and_is_a_file(churn: ModelVersion, api: APIClient) -> None:
    answered = api.get("/api/v1/models/churn/versions/1/card/", headers={"Accept": "text/markdown"})
    assert answered.status_code == 200
    assert answered.headers["Content-Type"] == "text/markdown; charset=utf-8"
    assert 'filename="churn-1.md"' in answered.headers["Content-Disposition"]
    card = answered.content.decode()
    titles = [line[3:] for line in card.splitlines() if line.startswith("## ")]
    assert titles == [
        "Intended use", "Inputs", "Training data", "Evaluation data", "Metrics", "Quantitative analyses",
        "Factors", "Gate", "Engine", "Caveats", "Lineage", "Activations",
    ]  # fmt: skip
    assert churn.dataset.sha256 in card
    assert "a test needs it" in card
    assert "contract = two\\_year" in card
    assert_error(api.get("/api/v1/models/churn/versions/9/card/"), 404, "unknown_version")


def test_texts_from_outside_cannot_break_the_cards_tables(churn: ModelVersion) -> None:
    evil = "a | b\n# c <script>alert(1)</script> [x](http://y) `code` \\| **bold** \u2028 end"
    Dataset.objects.filter(pk=churn.dataset_id).update(source=evil)
    version = ModelVersion.objects.get(pk=churn.pk)
    card = model_card.markdown(version)
    [line] = [line for line in card.splitlines() if line.startswith("| source |")]
    assert "\\<script\\>" in line
    assert "\n# c" not in card
    assert "\\[x\\](http://y)" in line
    unescaped = [at for at, sign in enumerate(line) if sign == "|" and (at == 0 or line[at - 1] != "\\")]
    assert len(unescaped) == 3, "two cells, whatever they hold"
    for row in card.splitlines():
        if row.startswith("|"):
            assert row.endswith("|")


def test_a_card_names_the_hyper_parameters_that_were_chosen(churn: ModelVersion) -> None:
    searched = {"chosen": {"model__C": 0.25}, "trials": [{"score": 0.8123}]}
    parameters = train_sample("churn", rows=600, activate=False, parameters=searched)
    card = model_card.markdown(parameters)
    assert "| parameter model\\_\\_C | 0.25 |" in card
    assert "0.8123" not in card
    changes = {change.name: change for change in side_by_side.lineage_changes(churn, parameters)}
    assert (changes["parameters"].before, changes["parameters"].after) == (
        "as declared",
        '{"model__C": 0.25}',
    )


def test_a_version_older_than_stored_evaluations_has_a_card(churn: ModelVersion) -> None:
    old = train_sample("churn", rows=600, activate=False, evaluation=None)
    card = model_card.markdown(old)
    assert "older than stored evaluations" in card
    assert "The version has not been activated yet." in card
    assert json.dumps(card)
