"""Asking for predictions: what is answered is what was logged."""

from __future__ import annotations

import csv
import io
import json
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from predictions.models import Prediction
from tests.conftest import Post, assert_error
from tests.trained import SAMPLES
from training import catalogue
from training.models import ModelVersion

CHURN = "/api/v1/models/churn/predictions/"
pytestmark = pytest.mark.django_db(transaction=True)


def test_one_object_gives_one_answer_and_one_row(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    answered = post(CHURN, customer)
    assert answered.status_code == 200
    body = answered.json()
    assert (body["model"], body["version"]) == ("churn", 1)
    [given] = body["predictions"]
    assert set(given) == {"id", "prediction", "probability", "probabilities", "warnings"}
    row = Prediction.objects.get()
    assert str(row.id) == given["id"]
    assert uuid.UUID(given["id"]).version == 7
    assert (row.prediction, row.probability) == (given["prediction"], given["probability"])
    assert row.version == churn
    assert row.client.username == "tester"
    assert row.request_id == answered.headers["X-Request-ID"]
    assert row.inputs == {**customer, "seniorcitizen": False}


def test_an_array_is_answered_in_its_order(churn: ModelVersion, post: Post, customer: dict[str, Any]) -> None:
    tenures = [70, 1, 35, 2]
    answered = post(CHURN, [{**customer, "tenure": tenure} for tenure in tenures]).json()["predictions"]
    rows = {str(row.id): row.inputs["tenure"] for row in Prediction.objects.all()}
    assert [rows[given["id"]] for given in answered] == tenures
    assert answered[0]["probability"] < answered[2]["probability"] < answered[1]["probability"]
    assert [given["id"] for given in answered] == sorted(rows)


def test_the_raw_csv_and_the_tutorials_form_give_the_same_rows(churn: ModelVersion, post: Post) -> None:
    raw = b"".join((SAMPLES / "churn.csv").read_bytes().splitlines(keepends=True)[:6])
    by_csv = post(CHURN, raw, "text/csv").json()["predictions"]
    course = []
    for row in csv.DictReader(io.StringIO(raw.decode())):
        lowered: dict[str, Any] = {k.lower(): v.lower().replace(" ", "_") for k, v in row.items()}
        lowered["tenure"] = int(lowered["tenure"])
        lowered["monthlycharges"] = float(lowered["monthlycharges"])
        lowered["totalcharges"] = float(lowered["totalcharges"]) if lowered["totalcharges"] else None
        lowered["seniorcitizen"] = int(lowered["seniorcitizen"])
        lowered["customerid"] = row["customerID"]
        del lowered["churn"]
        course.append(lowered)
    by_json = post(CHURN, course).json()["predictions"]
    assert [p["probability"] for p in by_csv] == [p["probability"] for p in by_json]
    keys = list(Prediction.objects.order_by("id").values_list("key", flat=True))
    assert keys[:5] == keys[5:]
    assert all(key and "-" in key for key in keys), "customerID is the row's own key"
    assert not any("customerid" in row.inputs for row in Prediction.objects.all())


def test_a_value_outside_the_training_range_is_answered_and_flagged(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    [given] = post(CHURN, {**customer, "tenure": 500}).json()["predictions"]
    assert given["warnings"] == [{"field": "tenure", "code": "out_of_range"}]
    assert Prediction.objects.get().warnings == given["warnings"]


def test_every_fault_of_every_row_is_reported_at_once(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    rows = [customer, {**customer, "tenure": "abc"}, {**customer, "contract": "weekly", "gender": None}]
    error = assert_error(post(CHURN, rows), 400, "invalid_input")
    assert error["message"] == "2 of 3 instances are invalid"
    found = {(fault["row"], fault["field"]): fault for fault in error["details"]}
    assert {place: fault["code"] for place, fault in found.items()} == {
        (1, "tenure"): "not_an_integer",
        (2, "contract"): "not_a_level",
        (2, "gender"): "null_not_allowed",
    }
    assert found[1, "tenure"]["value"] == "abc"
    assert found[2, "contract"]["allowed"] == ["month-to-month", "one_year", "two_year"]
    assert not Prediction.objects.exists(), "nothing of an invalid request is answered or logged"


def test_faults_beyond_a_hundred_are_cut_and_marked(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    error = assert_error(post(CHURN, [{**customer, "tenure": "x"}] * 150), 400, "invalid_input")
    assert len(error["details"]) == 100
    assert error["truncated"] is True


def test_many_rows_are_copied_and_kept_in_order(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    rows = [{**customer, "tenure": n % 72, "_key": f"k{n}"} for n in range(1500)]
    answered = post(CHURN, rows).json()["predictions"]
    logged = list(Prediction.objects.order_by("id").values_list("id", "key"))
    assert [(uuid.UUID(given["id"]), f"k{n}") for n, given in enumerate(answered)] == logged


def test_the_key_is_stored_and_searchable(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any]
) -> None:
    post(CHURN, [{**customer, "_key": "customer-7"}, {**customer, "customerID": "8"}, customer])
    found = api.get(CHURN, {"key": "customer-7"}).json()["predictions"]
    assert [row["key"] for row in found] == ["customer-7"]
    assert sorted(str(key) for key in Prediction.objects.values_list("key", flat=True)) == [
        "8",
        "None",
        "customer-7",
    ]


def test_a_key_given_twice_differently_is_refused(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    error = assert_error(post(CHURN, {**customer, "_key": "a", "customerID": "b"}), 400, "invalid_input")
    assert error["details"][0]["code"] == "duplicate_field"


def test_a_named_version_answers_whether_active_or_not(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    from tests.conftest import train_sample

    second = train_sample("churn", rows=300, activate=False)
    assert second.status == "candidate"
    asked = post("/api/v1/models/churn/versions/2/predictions/", customer).json()
    assert asked["version"] == 2
    assert post(CHURN, customer).json()["version"] == 1
    assert set(Prediction.objects.values_list("version__number", flat=True)) == {1, 2}
    assert_error(post("/api/v1/models/churn/versions/3/predictions/", customer), 404, "unknown_version")
    huge = f"/api/v1/models/churn/versions/{10**30}/predictions/"
    assert_error(post(huge, customer), 404, "unknown_version")


def test_the_first_tutorials_clients_work(churn: ModelVersion, post: Post, customer: dict[str, Any]) -> None:
    body = post("/predict", {"customerid": "7590-vhveg", **customer}).json()
    assert set(body) == {"churn_probability", "churn"}
    assert body["churn"] is (body["churn_probability"] >= 0.5)
    row = Prediction.objects.get()
    assert (row.key, row.probability) == ("7590-vhveg", body["churn_probability"])
    assert_error(post("/predict", [customer]), 400, "not_an_object")


def test_the_spanish_form_is_answered_with_a_price(post: Post, api: APIClient) -> None:
    from tests.conftest import train_sample

    train_sample("houses", rows=300)
    form = {
        "latitud": 40.42, "longitud": -3.7, "surface": 90, "baños": 2, "habitaciones": 3, "jardin": False,
        "antiguedad": 20, "superficie_util": 80, "ascensor": True, "garaje": "no", "condicion": "Reformado",
    }  # fmt: skip
    body = post("/predecir", form).json()
    assert set(body) == {"precio", "timestamp"}
    assert body["precio"] > 0
    assert abs(body["timestamp"] - Prediction.objects.get().at.timestamp()) < 5
    other = {**form, "superficie_construida": form["surface"]}
    del other["surface"]
    assert post("/predecir", other).json()["precio"] == body["precio"]
    both = assert_error(post("/predecir", {**other, "surface": 90}), 400, "invalid_input")
    assert both["details"][0]["code"] == "duplicate_field"
    nulls = {name: None for name in form if name != "surface"} | {"surface": 90}
    assert post("/predecir", nulls).status_code == 200
    assert api.get("/ping").content == b"PONG"


@pytest.mark.parametrize("model", ["churn", "cars", "cars_v3", "houses"])
def test_rows_of_the_training_csv_are_accepted_unchanged(post: Post, model: str) -> None:
    """The rows include the target and columns that no model uses, which are ignored."""
    from tests.conftest import train_sample

    train_sample(model, rows={"churn": 600, "houses": 300}.get(model, 400))
    raw = b"".join((SAMPLES / f"{model}.csv").read_bytes().splitlines(keepends=True)[:8])
    answered = post(f"/api/v1/models/{model}/predictions/", raw, "text/csv")
    assert answered.status_code == 200, answered.content[:500]
    assert len(answered.json()["predictions"]) == 7
    names = set(catalogue.get(model).schema.names)
    assert all(set(row.inputs) == names for row in Prediction.objects.all())


def test_a_csv_is_read_in_its_dialect_and_like_json(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    rows = [
        customer | {"tenure": 10, "monthlycharges": 1234.5, "totalcharges": charges} for charges in (7, 1.5)
    ]
    wanted = [given["probability"] for given in post(CHURN, rows).json()["predictions"]]
    names = list(customer)

    def written(delimiter: str, *cells: tuple[str, str, str], above: str = "") -> str:
        numbers = ("tenure", "monthlycharges", "totalcharges")
        changed = [dict(zip(numbers, row, strict=True)) for row in cells]
        lines = [delimiter.join(str((customer | row)[name]) for name in names) for row in changed]
        return above + "\n".join([delimiter.join(names), *lines]) + "\n"

    for body, query in (
        (written(",", ("1e+01", "1234.5", "7"), ("10.0", "1234.50", "1.5")), ""),
        (written(";", ("10", "1.234,5", "7"), ("10", "1.234,50", "1,5"), above="sep=;\r\n"), ""),
        (written("|", ("1e1", "1234.5", "7"), ("10", "1234.5", "1.5")), ""),
        (written("\t", ("10", "1\u202f234,5", "7"), ("10", "1 234,5", "1,5")), ""),
        (written(";", ("10", "1'234.5", "7"), ("10", "1\u2019234.5", "1.5")), "?thousands=apostrophe"),
    ):
        answered = post(f"{CHURN}{query}", body, "text/csv")
        assert answered.status_code == 200, answered.content
        assert [given["probability"] for given in answered.json()["predictions"]] == wanted
    doubtful = written(";", ("10", "1.234", "7"), ("10", "2.345", "1,5"))
    error = assert_error(post(CHURN, doubtful, "text/csv"), 400, "invalid_input")
    assert error["details"][0]["code"] == "ambiguous_decimal"
    assert "(?decimal=,&thousands=.)" in error["message"]
    told = post(f"{CHURN}?decimal=,&thousands=.", doubtful, "text/csv")
    assert told.status_code == 200
    assert Prediction.objects.order_by("-id")[0].inputs["monthlycharges"] == 2345
    error = assert_error(post(f"{CHURN}?thousands=x", doubtful, "text/csv"), 400, "invalid_input")
    assert error["details"][0]["allowed"] == [",", ".", "space", "apostrophe", "none"]
    for cell, code in (
        ("10.5", "not_an_integer"),
        ("1e20", "out_of_bounds"),
        ("9007199254740993", "out_of_bounds"),
    ):
        by_csv = assert_error(post(CHURN, written(",", (cell, "1", "1")), "text/csv"), 400, "invalid_input")
        by_json = assert_error(post(CHURN, customer | {"tenure": json.loads(cell)}), 400, "invalid_input")
        assert [error["details"][0]["code"] for error in (by_csv, by_json)] == [code, code]


def test_nothing_is_answered_without_an_active_version(
    client_user: User, post: Post, customer: dict[str, Any]
) -> None:
    from training.registry import lookup

    lookup.sync_catalogue()
    answered = post(CHURN, customer)
    assert_error(answered, 503, "no_active_version")
    assert int(answered.headers["Retry-After"]) > 0


def test_html_in_a_value_is_stored_unchanged(post: Post, api: APIClient) -> None:
    from tests.conftest import train_sample

    train_sample("cars", rows=400)
    car = {
        "name": "<script>alert(1)</script>", "year": 2014, "km_driven": 1000, "fuel": "Diesel",
        "seller_type": "Individual", "transmission": "Manual", "owner": "First Owner", "_key": "=1+1",
    }  # fmt: skip
    [given] = post("/api/v1/models/cars/predictions/", car).json()["predictions"]
    assert "probability" not in given
    row = Prediction.objects.get()
    assert row.inputs["name"] == car["name"]
    exported = api.get("/api/v1/models/cars/predictions/", {"format": "csv"})
    assert exported.headers["Content-Type"].startswith("text/csv")
    [line] = csv.DictReader(io.StringIO(exported.getvalue().decode()))
    assert line["key"] == "'=1+1", "a cell that begins like a formula is neutralised"
    assert line["input.name"] == car["name"]
    assert json.loads(json.dumps(float(line["prediction"]))) == given["prediction"]


@pytest.mark.parametrize("path", [CHURN, "/api/v1/models/churn/versions/1/predictions/"])
def test_a_csv_answer_has_the_keys_and_the_inputs_in_the_order_of_the_request(
    churn: ModelVersion, post: Post, customer: dict[str, Any], path: str
) -> None:
    body = [customer | {"_key": f"c{number % 7}", "tenure": number} for number in (9, 3, 70, 1, 12, 8, 40, 2)]
    plain = post(path, body, Accept="text/csv")
    rows = list(csv.DictReader(io.StringIO(plain.content.decode())))
    assert [row["key"] for row in rows] == [row["_key"] for row in body]
    assert not any(name.startswith("input.") for name in rows[0])
    once = {"Accept": "text/csv", "Idempotency-Key": path}
    for _ in range(2):  # the second one is the stored answer
        whole = post(f"{path}?include=inputs", body, **once)
        rows = list(csv.DictReader(io.StringIO(whole.content.decode())))
        assert [(row["key"], row["input.tenure"]) for row in rows] == [
            (row["_key"], str(row["tenure"])) for row in body
        ]
    assert whole["Idempotent-Replayed"] == "true"
    answers = post(f"{path}?include=inputs", body).json()["predictions"]
    assert [(each["key"], each["inputs"]["tenure"]) for each in answers] == [
        (row["_key"], row["tenure"]) for row in body
    ]
    assert set(post(path, customer).json()["predictions"][0]) == {
        "id",
        "prediction",
        "probability",
        "probabilities",
        "warnings",
    }
    assert_error(post(f"{path}?include=everything", body), 400, "invalid_input")


def test_answers_are_available_as_csv_and_errors_stay_json(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    answered = post(CHURN, [customer, customer], Accept="text/csv")
    rows = list(csv.DictReader(io.StringIO(answered.content.decode())))
    assert [row["id"] for row in rows] == [str(row.id) for row in Prediction.objects.order_by("id")]
    assert set(rows[0]) == {
        "id", "model", "version", "key", "prediction", "probability", "probability_false", "probability_true",
        "warnings",
    }  # fmt: skip
    assert_error(post(CHURN, {}, Accept="text/csv"), 400, "invalid_input")
