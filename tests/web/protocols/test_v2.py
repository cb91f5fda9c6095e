"""The Open Inference Protocol V2: every answer is logged with what was sent, on both paths."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient

from core.metrics import counters
from predictions.models import Prediction
from tests.conftest import Post, keyed
from tests.web.protocols.v2_requests import (
    CHURN,
    GRAPES,
    HEADER,
    SOME,
    Both,
    answered,
    binary,
    error_of,
    logged,
    outputs,
    request,
    tensors,
)  # fmt: skip
from training.models import ModelVersion, RegisteredModel

pytestmark = pytest.mark.django_db(transaction=True)


# -- metadata and health -------------------------------------------------------------------------------


def test_health_needs_no_key_and_all_else_needs_one(churn: ModelVersion, api: APIClient) -> None:
    anyone = Client()
    assert anyone.get("/v2/health/live").json() == {"live": True}
    assert anyone.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2", "/v2/models/churn", "/v2/models/churn/ready", "/v2/models/churn/versions/1"):
        refused = anyone.get(path)
        assert refused.status_code == 401
        assert refused.json() == {"error": "send Authorization: Token <key>"}
        assert api.get(path).status_code == 200
    assert anyone.post(CHURN, b"{}", content_type="application/json").status_code == 401
    server = api.get("/v2").json()
    assert server["name"] == "vigia"
    assert server["extensions"] == ["binary_tensor_data"]
    bearer = {"Authorization": api._credentials["HTTP_AUTHORIZATION"].replace("Token", "Bearer")}
    assert anyone.get("/v2", headers=bearer).status_code == 200


def test_a_service_without_a_version_is_not_ready(db: None) -> None:
    response = Client().get("/v2/health/ready")
    assert (response.status_code, response.json()) == (503, {"ready": False})


def test_the_metadata_follow_from_the_schema(churn: ModelVersion, api: APIClient) -> None:
    metadata = api.get("/v2/models/churn").json()
    assert metadata == api.get("/v2/models/churn/versions/1").json()
    assert (metadata["name"], metadata["versions"]) == ("churn", ["1"])
    columns = churn.dataset_schema.columns
    assert [each["name"] for each in metadata["inputs"]] == [column.name for column in columns]
    by_name = {each["name"]: each for each in metadata["inputs"]}
    assert by_name["tenure"] == {"name": "tenure", "datatype": "INT64", "shape": [-1]}
    assert by_name["seniorcitizen"]["datatype"] == "BOOL"
    assert by_name["contract"]["datatype"] == "BYTES"
    assert by_name["totalcharges"]["parameters"] == {"nullable": True}
    assert metadata["outputs"] == [
        {"name": "prediction", "datatype": "BOOL", "shape": [-1]},
        {"name": "probability", "datatype": "FP64", "shape": [-1]},
        {
            "name": "probabilities", "datatype": "FP64", "shape": [-1, 2],
            "parameters": {"classes": ["false", "true"]},
        },
    ]  # fmt: skip
    assert api.get("/v2/models/churn/ready").json() == {"name": "churn", "ready": True}


def test_what_is_not_there_is_said_in_the_protocols_shape(churn: ModelVersion, api: APIClient) -> None:
    for path, status, words in (
        ("/v2/models/none", 404, "no registered model is called 'none'"),
        ("/v2/models/churn/versions/7", 404, "churn has no version 7"),
        ("/v2/models/churn/versions/7/ready", 404, "churn has no version 7"),
        ("/v2/models/cars/ready", 503, "no version of cars is active"),
        ("/v2/models/movies", 409, "use /api/v1/recommendations/"),
        ("/v2/models/churn/", 404, "no page or resource"),
        (CHURN, 405, "not allowed"),
    ):
        response = api.get(path)
        assert response.status_code == status, path
        assert words in response.json()["error"]
    for path, status, words in (
        ("/v2/models/movies/infer", 409, "use /api/v1/recommendations/"),
        ("/v2/models/none/infer", 404, "no registered model"),
        ("/v2/models/churn/versions/9/infer", 404, "churn has no version 9"),
    ):
        response = api.generic("POST", path, json.dumps(request(SOME)))
        assert response.status_code == status
        assert words in response.json()["error"]


# -- answers -------------------------------------------------------------------------------------------


def test_a_tensor_per_column_is_answered_and_logged_on_both_paths(
    churn: ModelVersion, both: Both, customer: dict[str, Any]
) -> None:
    rows = [customer, customer | {"tenure": 500, "totalcharges": None}]
    sent = request(rows, id="request 42", model_name="any", parameters={"trace": "x"})
    plain, quick = both(CHURN, sent)
    first, second = answered(plain), answered(quick)
    for each in (first, second):
        assert (each["model_name"], each["model_version"], each["id"]) == ("churn", "1", "request 42")
        assert [output["name"] for output in each["outputs"]] == [
            "prediction",
            "probability",
            "probabilities",
        ]
        assert [output["shape"] for output in each["outputs"]] == [[2], [2], [2, 2]]
        assert each["parameters"]["warnings"] == [{"row": 1, "field": "tenure", "code": "out_of_range"}]
        for sent_row, row in zip(rows, logged(each), strict=True):
            assert row.inputs == sent_row | {"seniorcitizen": False}
        given = {output["name"]: output["data"] for output in each["outputs"]}
        assert given["prediction"] == [row.prediction for row in logged(each)]
        assert given["probability"] == [row.probability for row in logged(each)]
        assert given["probabilities"][1::2] == given["probability"]
        assert math.isclose(sum(given["probabilities"]), 2)
    assert first["outputs"] == second["outputs"]
    assert quick is not None
    assert {name.title() for name in plain[1]} == set(quick[1])
    assert "Vary" not in quick[1], "Accept does not choose the format"
    assert quick[1]["Allow"] == plain[1]["Allow"]


def test_a_version_is_asked_by_its_number(churn: ModelVersion, both: Both, customer: dict[str, Any]) -> None:
    for sent in both("/v2/models/churn/versions/1/infer", request([customer])):
        assert logged(answered(sent))[0].version == churn


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT32", "INT64"])
def test_a_matrix_of_numbers_is_read_in_the_order_of_the_columns(
    grapes: ModelVersion,
    both: Both,
    datatype: str,
) -> None:
    flat = [value for row in SOME for value in row.values()]
    flat = [int(value) for value in flat] if "INT" in datatype else flat
    nested = [flat[:2], flat[2:4], flat[4:]]
    for data in (flat, nested):
        tensor = {"name": "input-0", "shape": [3, 2], "datatype": datatype, "data": data}
        for sent in both(GRAPES, {"inputs": [tensor]}):
            answer = answered(sent)
            assert [list(row.inputs.values()) for row in logged(answer)] == [flat[:2], flat[2:4], flat[4:]]
            by_name = {output["name"]: output for output in answer["outputs"]}
            assert by_name["prediction"]["datatype"] == "BYTES"
            assert by_name["prediction"]["data"] == ["poor", "good", "fair"]
            assert by_name["probabilities"]["shape"] == [3, 3]
            assert by_name["probabilities"]["parameters"] == {"classes": ["fair", "good", "poor"]}
    sent = binary([tensor | {"data": flat}])
    for answer in map(answered, both(GRAPES, *sent)):
        assert [list(row.inputs.values()) for row in logged(answer)] == [flat[:2], flat[2:4], flat[4:]]


def test_columns_of_a_shape_with_one_value_per_row_are_read(grapes: ModelVersion, both: Both) -> None:
    inputs = [tensor | {"shape": [3, 1]} for tensor in tensors(SOME)]
    nested = [tensor | {"data": [[value] for value in tensor["data"]]} for tensor in inputs]
    for each in (inputs, nested):
        for sent in both(GRAPES, {"inputs": each}):
            assert [row.inputs for row in logged(answered(sent))] == SOME


def test_binary_tensors_go_in_and_out(churn: ModelVersion, both: Both, customer: dict[str, Any]) -> None:
    rows = [customer | {"seniorcitizen": True}, customer | {"tenure": 12, "totalcharges": math.nan}]
    body, length = binary(tensors(rows), parameters={"binary_data_output": True}, id="b")
    for sent in both(CHURN, body, length):
        answer = answered(sent)
        assert sent is not None
        headers = {name.title(): value for name, value in sent[1].items()}
        assert headers["Content-Type"] == "application/octet-stream"
        assert answer["id"] == "b"
        assert all("data" not in output for output in answer["outputs"])
        given = outputs(sent[2], headers[HEADER])
        first, second = logged(answer)
        assert first.inputs == customer | {"seniorcitizen": True}
        assert second.inputs == customer | {"seniorcitizen": False, "tenure": 12, "totalcharges": None}
        assert given["prediction"] == [first.prediction, second.prediction]
        assert given["probability"] == [first.probability, second.probability]
        assert len(given["probabilities"]) == 4


def test_outputs_are_given_as_they_are_requested(grapes: ModelVersion, both: Both) -> None:
    wanted = [
        {"name": "probabilities", "parameters": {"binary_data": True}},
        {"name": "prediction", "parameters": {"binary_data": False}},
    ]
    for sent in both(GRAPES, request(SOME, outputs=wanted, parameters={"binary_data_output": True})):
        answer = answered(sent)
        assert sent is not None
        assert [output["name"] for output in answer["outputs"]] == ["probabilities", "prediction"]
        given = outputs(sent[2], {name.title(): value for name, value in sent[1].items()}[HEADER])
        assert given["prediction"] == ["poor", "good", "fair"]
        assert len(given["probabilities"]) == 9
    labels = [{"name": "prediction", "parameters": {"binary_data": True}}]
    for sent in both(GRAPES, request(SOME, outputs=labels)):
        assert sent is not None
        length = {name.title(): value for name, value in sent[1].items()}[HEADER]
        assert outputs(sent[2], length) == {"prediction": ["poor", "good", "fair"]}


def test_the_switch_for_probabilities_decides_the_outputs(
    grapes: ModelVersion,
    both: Both,
    api: APIClient,
) -> None:
    RegisteredModel.objects.filter(name="grapes").update(answers_probabilities=False)
    names = [output["name"] for output in api.get("/v2/models/grapes").json()["outputs"]]
    assert names == ["prediction", "probability"]
    for sent in both(GRAPES, request(SOME)):
        assert [output["name"] for output in answered(sent)["outputs"]] == names
    plain, quick = both(GRAPES, request(SOME, outputs=[{"name": "probabilities"}]))
    assert "probabilities is not an output of this model" in error_of(plain, 400)
    assert quick is None


def test_a_key_is_taken_as_a_tensor_or_a_parameter(
    churn: ModelVersion, both: Both, customer: dict[str, Any]
) -> None:
    for name in ("customerID", "_key"):
        rows = [{name: "7590-VHVEG", **customer}, {name: "", **customer}]
        for sent in both(CHURN, request(rows)):
            assert [row.key for row in logged(answered(sent))] == ["7590-VHVEG", None]
        for sent in both(CHURN, request([customer], parameters={name: "one"})):
            assert logged(answered(sent))[0].key == "one"
    plain, quick = both(CHURN, request([customer, customer], parameters={"_key": "one"}))
    assert "send _key as a tensor" in error_of(plain, 400)
    assert quick is None
    twice = request([{"_key": "one", **customer}], parameters={"_key": "two"})
    plain, quick = both(CHURN, twice)
    assert "the input _key is given twice" in error_of(plain, 400)
    assert quick is None


def test_names_are_read_as_on_the_native_route(
    churn: ModelVersion, both: Both, customer: dict[str, Any]
) -> None:
    rows = [{name.title(): value for name, value in customer.items()} | {"Churn": True}]
    del rows[0]["Totalcharges"]
    for sent in both(CHURN, request(rows)):
        [row] = logged(answered(sent))
        assert row.inputs == customer | {"seniorcitizen": False, "totalcharges": None}


@pytest.mark.parametrize(
    "content_type", ["application/octet-stream", "application/x-www-form-urlencoded", "text/plain"]
)
def test_the_content_type_does_not_matter(
    churn: ModelVersion, post: Post, customer: dict[str, Any], content_type: str
) -> None:
    response = post(CHURN, request([customer]), content_type, Accept="application/octet-stream")
    assert response.status_code == 200, response.content


def test_basic_authentication_with_the_key_as_password(
    churn: ModelVersion, api: APIClient, customer: dict[str, Any]
) -> None:
    key = api._credentials["HTTP_AUTHORIZATION"].split()[1]
    basic = "Basic " + base64.b64encode(f"any:{key}".encode()).decode()
    sent = json.dumps(request([customer]))
    response = Client().generic("POST", CHURN, sent, headers={"Authorization": basic})
    assert response.status_code == 200


def test_a_client_without_the_right_is_refused(
    churn: ModelVersion, customer: dict[str, Any], db: None
) -> None:
    stranger = keyed(User.objects.create_user("stranger"))
    response = stranger.generic("POST", CHURN, json.dumps(request([customer])))
    assert response.status_code == 403
    assert isinstance(response.json()["error"], str)
    assert stranger.get("/v2/models/churn").status_code == 403


def test_a_retry_with_its_idempotency_key_gets_the_stored_answer(
    churn: ModelVersion, both: Both, customer: dict[str, Any]
) -> None:
    """The fast path declines the retry, and Django writes the stored answer in the form that it has."""
    body, length = binary(tensors([customer]), parameters={"binary_data_output": True}, id="r")
    plain, quick = both(CHURN, body, length, **{"Idempotency-Key": "once"})
    assert quick is None, "the answer is stored"
    answer = answered(plain)
    again, _ = both(CHURN, body, length, **{"Idempotency-Key": "once"})
    assert again[2] == plain[2]
    assert again[1]["Idempotent-Replayed"] == "true"
    assert Prediction.objects.count() == 1
    assert logged(answer)
    other, _ = both(CHURN, request([customer]), **{"Idempotency-Key": "once"})
    assert "used with another request" in error_of(other, 409)


def test_requests_are_counted_under_their_route(
    churn: ModelVersion, both: Both, customer: dict[str, Any]
) -> None:
    both(CHURN, request([customer]))  # loads the key
    before = _counted()
    for sent in both(CHURN, request([customer])):
        answered(sent)
    assert _counted() == before + 2


def _counted() -> float:
    labels = {"route": "/v2/models/{model}/infer", "method": "POST", "status": "200"}
    return counters.instruments().registry.get_sample_value("vigia_requests_total", labels) or 0.0


@pytest.mark.parametrize("path", [CHURN, "/models/churn/invocations"])
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_session_needs_its_token_whatever_the_content_type(
    churn: ModelVersion, path: str, kind: str
) -> None:
    browser = Client(enforce_csrf_checks=True)
    user = User.objects.create_superuser("boss")
    browser.force_login(user, "django.contrib.auth.backends.ModelBackend")
    assert browser.post(path, b"{}", content_type=kind).status_code == 403
    browser.cookies["csrftoken"] = token = "a" * 32
    answer = browser.post(path, b"{}", content_type=kind, headers={"X-CSRFToken": token})
    assert answer.status_code in (400, 415) and "CSRF" not in answer.content.decode()
