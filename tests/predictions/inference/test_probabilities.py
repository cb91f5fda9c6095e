"""Every class's probability: answers, log, CSV, replayed answers and pages hold the same numbers."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from predictions.models import Prediction
from predictions.rollouts import shadow_worker
from tests import fast_path
from tests.conftest import Post
from tests.grapes import GRADES
from training.models import ModelVersion, RegisteredModel, TrainingRun
from training.runs import execution
from training.runs import requests as run_requests
from training.serving import engine_cache, routing
from web.fast_path import FastPath

pytestmark = pytest.mark.django_db(transaction=True)
CHURN, GRAPES = "/api/v1/models/churn/predictions/", "/api/v1/models/grapes/predictions/"
SOME = [{"acidity": acidity, "sugar": sugar} for acidity in (0.5, 5.9, 6.1, 9.0) for sugar in (1.0, 5.0, 8.5)]


def quick(api: APIClient, path: str, body: Any, **headers: str) -> dict[str, Any]:
    """Returns the answer of the fast path, which has to take the request."""
    reply = fast_path.ask(FastPath(), path, body, api._credentials["HTTP_AUTHORIZATION"], **headers)
    assert reply is not None
    answer: dict[str, Any] = json.loads(reply.body)
    return answer


def without_ids(answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"predictions": [each | {"id": None} for each in answer["predictions"]]}


def turn(model: RegisteredModel, *, on: bool) -> None:
    RegisteredModel.objects.filter(pk=model.pk).update(answers_probabilities=on)


# -- several classes -----------------------------------------------------------------------------------


def test_an_answer_has_the_probability_of_every_class(grapes: ModelVersion, post: Post) -> None:
    assert grapes.classes == list(GRADES)
    answers = post(GRAPES, SOME).json()["predictions"]
    for each in answers:
        by_class = each["probabilities"]
        assert tuple(by_class) == GRADES
        assert math.fsum(by_class.values()) == pytest.approx(1.0, abs=1e-12)
        assert each["prediction"] == max(by_class, key=by_class.__getitem__)
        assert each["probability"] == by_class[each["prediction"]]
    assert {each["prediction"] for each in answers} == set(GRADES)


def test_the_log_has_an_array_in_the_order_of_the_classes(
    grapes: ModelVersion, api: APIClient, post: Post
) -> None:
    answers = {each["id"]: each for each in post(GRAPES, SOME).json()["predictions"]}
    with connection.cursor() as cursor:
        cursor.execute("SELECT id::text, probabilities::text FROM predictions_prediction")
        stored = {identifier: json.loads(text) for identifier, text in cursor.fetchall()}
    assert stored == {key: list(each["probabilities"].values()) for key, each in answers.items()}
    for row in api.get(GRAPES).json()["predictions"]:
        shown = answers[row["id"]]
        assert list(row["probabilities"].items()) == list(shown["probabilities"].items())
        one = api.get(f"/api/v1/predictions/{row['id']}/").json()
        assert one["probabilities"] == shown["probabilities"]
        assert one["probability"] == shown["probability"]


def test_csv_has_a_column_for_each_class(grapes: ModelVersion, api: APIClient, post: Post) -> None:
    names = [f"probability_{grade}" for grade in GRADES]
    text = post(GRAPES, SOME, Accept="text/csv").content.decode()
    answered = list(csv.DictReader(io.StringIO(text)))
    assert text.splitlines()[0].split(",")[-5:] == ["probability", *names, "warnings"]
    logged = csv.DictReader(io.StringIO("".join(map(bytes.decode, api.get(GRAPES, {"format": "csv"})))))
    rows = {row["id"]: row for row in logged}
    by_json = {row["id"]: row for row in api.get(GRAPES).json()["predictions"]}
    assert len(rows) == len(answered) == len(SOME)
    for shown in answered:
        numbers = {name: float(shown[name]) for name in names}
        assert numbers == {name: float(rows[shown["id"]][name]) for name in names}
        assert list(numbers.values()) == list(by_json[shown["id"]]["probabilities"].values())


def test_the_fast_path_answers_and_logs_the_same(grapes: ModelVersion, api: APIClient, post: Post) -> None:
    for body in (SOME[0], SOME, SOME * 10):  # a parameter per cell, and one per column
        plain = post(GRAPES, body).json()
        answer = quick(api, GRAPES, body)
        assert json.dumps(without_ids(answer)) == json.dumps(without_ids(plain))
        logged = {str(row.pk): row.probabilities for row in Prediction.objects.all()}
        assert all(logged[each["id"]] == each["probabilities"] for each in answer["predictions"])


def test_a_retry_gets_the_stored_probabilities(grapes: ModelVersion, api: APIClient, post: Post) -> None:
    first = post(GRAPES, SOME, Idempotency_Key="k-1").json()
    turn(grapes.registered_model, on=False)
    again = post(GRAPES, SOME, Idempotency_Key="k-1")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json() == first
    assert "probabilities" in first["predictions"][0]


def test_the_switch_binds_every_answer_at_once(grapes: ModelVersion, api: APIClient, post: Post) -> None:
    post(GRAPES, SOME)
    assert "probabilities" in quick(api, GRAPES, SOME[0])["predictions"][0]
    held = fast_path.begin(FastPath(), GRAPES, SOME[0], api._credentials["HTTP_AUTHORIZATION"])
    turn(grapes.registered_model, on=False)
    assert fast_path.ended(held) is None, "computed before the switch: the fence refuses it"
    answer = post(GRAPES, SOME[0]).json()["predictions"][0]
    assert set(answer) == {"id", "prediction", "probability", "warnings"}
    assert Prediction.objects.get(pk=answer["id"]).by_class is None
    assert quick(api, GRAPES, SOME[0])["predictions"][0].keys() == answer.keys()
    [row] = api.get(GRAPES, {"limit": "1"}).json()["predictions"]
    assert "probabilities" not in row and "probability" in row
    turn(grapes.registered_model, on=True)
    assert "probabilities" in post(GRAPES, SOME[0]).json()["predictions"][0]
    assert api.get("/api/v1/models/grapes/").json()["answers_probabilities"] is True


def test_a_row_keeps_its_probabilities_when_the_switch_is_off_later(
    grapes: ModelVersion, api: APIClient, post: Post
) -> None:
    [answer] = post(GRAPES, SOME[0]).json()["predictions"]
    turn(grapes.registered_model, on=False)
    assert api.get(f"/api/v1/predictions/{answer['id']}/").json()["probabilities"] == answer["probabilities"]


def test_pages_show_every_class(grapes: ModelVersion, post: Post, admin_client: Client) -> None:
    [answer] = post(GRAPES, SOME[0]).json()["predictions"]
    page = admin_client.get(reverse("admin:predictions_prediction_change", args=[answer["id"]]))
    text = page.content.decode()
    for name, number in answer["probabilities"].items():
        assert f"{name} {number * 100:.1f} %" in text
    assert f"probability of {answer['prediction']}" in text
    tried = admin_client.post(GRAPES, SOME[0], content_type="application/json", HTTP_ACCEPT="text/html")
    assert "probabilities" in tried.content.decode()


@pytest.fixture
def at_most_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "MOST_CLASSES_ANSWERED", 2)


def test_a_first_version_with_too_many_classes_turns_the_switch_off(
    at_most_two: None, grapes: ModelVersion, post: Post
) -> None:
    model = grapes.registered_model
    assert not RegisteredModel.objects.get(pk=model.pk).answers_probabilities
    assert "probabilities" not in post(GRAPES, SOME[0]).json()["predictions"][0]
    turn(model, on=True)
    run = run_requests.request(model, grapes.dataset, mode=TrainingRun.Mode.REPLACE, by=None)
    assert run_requests.execute(run.pk)
    assert RegisteredModel.objects.get(pk=model.pk).answers_probabilities, "only the first version decides"


def test_a_shadow_stores_every_class_unless_the_switch_is_off(grapes: ModelVersion) -> None:
    served = engine_cache.ready(grapes.pk)
    values = [tuple(row.values()) for row in SOME]
    ids = [f"id-{at}".encode() for at in range(len(SOME))]
    worker = shadow_worker.ShadowWorker(100, 5)
    for every_class in (True, False):
        shadow = routing.Shadow(1, grapes.pk)
        waiting = shadow_worker.Waiting(shadow, served.schema.names, values, ids, 0.0, every_class)
        lines = [line.rstrip(b"\n").split(b"\t") for line in worker._predict([waiting])]
        assert [line[1] for line in lines] == ids
        for *_, answer, probability, array in lines:
            if not every_class:
                assert array == b"\\N"
                continue
            by_class = dict(zip(GRADES, json.loads(array), strict=True))
            assert json.loads(answer) == max(by_class, key=by_class.__getitem__)
            assert json.loads(probability) == max(by_class.values())


# -- two classes ---------------------------------------------------------------------------------------


def test_two_classes_share_the_one_logged_probability(
    churn: ModelVersion, api: APIClient, post: Post, customer: dict[str, Any]
) -> None:
    assert churn.classes == [False, True]
    body = [customer | {"tenure": tenure} for tenure in (1, 20, 70)]
    plain = post(CHURN, body).json()
    answer = quick(api, CHURN, body)
    assert json.dumps(without_ids(answer)) == json.dumps(without_ids(plain))
    for each in plain["predictions"]:
        p = each["probability"]
        assert list(each["probabilities"].items()) == [("false", 1.0 - p), ("true", p)]
        assert each["prediction"] is (p >= churn.threshold)
        row = Prediction.objects.get(pk=each["id"])
        assert row.by_class is None and row.probabilities == each["probabilities"]
        assert api.get(f"/api/v1/predictions/{each['id']}/").json()["probabilities"] == each["probabilities"]
    text = post(CHURN, body, Accept="text/csv").content.decode()
    for shown, each in zip(csv.DictReader(io.StringIO(text)), plain["predictions"], strict=True):
        assert float(shown["probability_true"]) == each["probability"]
        assert float(shown["probability_false"]) == each["probabilities"]["false"]


def test_the_switch_hides_both_classes(
    churn: ModelVersion, api: APIClient, post: Post, customer: dict[str, Any]
) -> None:
    post(CHURN, customer)
    turn(churn.registered_model, on=False)
    [answer] = post(CHURN, customer).json()["predictions"]
    assert set(answer) == {"id", "prediction", "probability", "warnings"}
    assert all("probabilities" not in row for row in api.get(CHURN).json()["predictions"])
    header = b"".join(api.get(CHURN, {"format": "csv"})).decode().splitlines()[0]
    assert "probability," in header and "probability_" not in header


def test_a_version_older_than_its_classes_has_those_of_its_target(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE training_modelversion DISABLE TRIGGER written_once")
        cursor.execute("UPDATE training_modelversion SET classes = NULL")
        cursor.execute("ALTER TABLE training_modelversion ENABLE TRIGGER written_once")
    engine_cache.forget()
    churn.refresh_from_db()
    assert (churn.classes, churn.known_classes) == (None, (False, True))
    [answer] = post(CHURN, customer).json()["predictions"]
    assert list(answer["probabilities"]) == ["false", "true"]


def test_the_admin_turns_the_switch(churn: ModelVersion, admin_client: Client) -> None:
    address = reverse("admin:training_registeredmodel_change", args=[churn.registered_model_id])
    assert 'name="answers_probabilities"' in admin_client.get(address).content.decode()
    form = {
        "policy": "manual", "review_hours": 24, "review_window_hours": 24, "retrain_on": "never",
        "retrain_cooldown_hours": 24,
    }  # fmt: skip
    for value, on in (({}, False), ({"answers_probabilities": "on"}, True)):
        assert admin_client.post(address, form | value).status_code == 302
        assert RegisteredModel.objects.get(pk=churn.registered_model_id).answers_probabilities is on


def test_a_prediction_needs_the_same_queries(
    churn: ModelVersion,
    post: Post,
    customer: dict[str, Any],
    client_user: User,
    django_assert_max_num_queries: Callable[[int], Any],
) -> None:
    for _ in range(3):
        post(CHURN, customer)
    with django_assert_max_num_queries(2):
        post(CHURN, customer)
