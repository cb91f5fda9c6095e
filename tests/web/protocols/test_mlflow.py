"""MLflow's scoring protocol: each form of rows gives the answers and the log's rows of the native route."""

from __future__ import annotations

import base64
import copy
import dataclasses
import io
import json
from typing import Any

import pandas as pd
import pytest
from django.contrib.auth.models import User
from django.test import Client
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from core.version import VERSION
from predictions.errors import LogUnavailable
from predictions.models import Prediction
from tests import fast_path
from tests.conftest import Post, keyed
from tests.grapes import grapes  # noqa: F401 (fixture)
from tests.predictions.inference.test_dates import orders  # noqa: F401 (fixture)
from tests.trained import train_sample
from tests.training.conftest import Declare, declare, shelf  # noqa: F401 (fixtures)
from tests.vigia_ml.schema.test_row_decoder import SMALL, VALID
from tests.web.metrics.test_metrics import scraped, scraper  # noqa: F401 (fixture)
from training.access import client_keys
from training.models import ModelVersion
from training.runs import requests as run_requests
from training.runs import uploads
from training.serving import engine_cache
from vigia_ml.errors import VigiaError
from vigia_ml.schema import DatasetSchema, Instance, InvalidRows
from vigia_ml.schema.row_decoder import CompiledSchema
from web.fast_path import FastPath, RequestHead
from web.limits import INLINE_CSV_BYTES
from web.protocols import mlflow

NATIVE = "/api/v1/models/churn/predictions/"
CHURN = "/models/churn/invocations"
pytestmark = pytest.mark.django_db(transaction=True)


def assert_refused(response: Any, status: int, code: str) -> str:
    """Asserts that a response is an error in MLflow's shape; returns its message."""
    assert response.status_code == status, response.content[:500]
    body = json.loads(response.content)
    assert set(body) == {"error_code", "message"}
    assert body["error_code"] == code, body
    assert response.headers["X-Request-ID"]
    return str(body["message"])


def logged() -> list[dict[str, Any]]:
    return [row.inputs for row in Prediction.objects.order_by("id")]


def rows_of(customer: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        customer,
        customer | {"tenure": 30, "contract": "two_year", "totalcharges": None},
        customer | {"monthlycharges": 99.5, "seniorcitizen": 1},
    ]


def forms(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the same rows in every form that MLflow's server reads."""
    names, values = list(rows[0]), [list(row.values()) for row in rows]
    shuffled = names[::-1]
    return {
        "records": {"dataframe_records": rows},
        "split": {"dataframe_split": {"index": list(range(len(rows))), "columns": names, "data": values}},
        "split, columns in another order": {
            "dataframe_split": {
                "columns": shuffled,
                "data": [[row[name] for name in shuffled] for row in rows],
            }
        },
        "instances by row": {"instances": rows},
        "instances by position": {"instances": values},
        "inputs by row": {"inputs": rows},
        "inputs by column": {"inputs": {name: [row[name] for row in rows] for name in names}},
        "inputs by position": {"inputs": values},
        "with params": {"params": {"threshold": 0.1}, "dataframe_records": rows},
        "with unknown fields": {"instances": rows, "signature_name": "serving_default", "parameters": {}},
    }


@pytest.mark.parametrize("form", list(forms([{"a": 1}])))
@pytest.mark.parametrize("address", [CHURN, "/endpoints/churn/invocations"])
def test_every_form_gives_the_native_answers_and_rows_of_the_log(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any], form: str, address: str
) -> None:
    rows = rows_of(customer)
    native = post(NATIVE, rows).json()
    expected = logged()
    body = forms(rows)[form]
    authorization = str(api._credentials["HTTP_AUTHORIZATION"])
    for attempt in range(2):
        response = post(address, body)
        assert response.status_code == 200, response.content
        answer = response.json()
        assert answer["predictions"] == [each["prediction"] for each in native["predictions"]]
        assert answer["probability"] == [each["probability"] for each in native["predictions"]]
        assert answer["probabilities"] == [each["probabilities"] for each in native["predictions"]]
        assert answer["warnings"] == [each["warnings"] for each in native["predictions"]]
        assert (answer["model"], answer["version"]) == ("churn", native["version"])
        assert answer["ids"] == [str(pk) for pk in _newest(len(rows))]
        assert logged()[-len(rows) :] == expected, attempt
    fast = fast_path.ask(FastPath(), address, body, authorization)
    if form in ("inputs by column", "with unknown fields"):
        assert fast is None, "Django reads it"
        return
    assert fast is not None
    own = json.loads(fast.body)
    assert own.pop("ids") == [str(pk) for pk in _newest(len(rows))]
    assert own == {name: value for name, value in answer.items() if name != "ids"}
    assert list(own) == [name for name in answer if name != "ids"]
    assert logged()[-len(rows) :] == expected
    headers = {name.decode().lower(): value.decode() for name, value in fast.headers}
    assert headers.keys() == {name.lower() for name in response.headers}
    for name in headers.keys() - {"content-length", "x-request-id"}:
        assert headers[name] == response.headers[name]


def _newest(count: int) -> list[Any]:
    return list(Prediction.objects.order_by("id").values_list("pk", flat=True))[-count:]


def test_a_regression_and_three_classes_answer_in_mlflows_shape(
    grapes: ModelVersion,  # noqa: F811
    post: Post,
) -> None:
    answer = post("/models/grapes/invocations", {"inputs": [[1.5, 2.0], [-3, 0.25]]}).json()
    native = post("/api/v1/models/grapes/predictions/", [{"acidity": 1.5, "sugar": 2.0}]).json()
    assert answer["predictions"][0] == native["predictions"][0]["prediction"]
    assert answer["probabilities"][0] == native["predictions"][0]["probabilities"]
    assert set(answer) == {
        "predictions", "model", "version", "ids", "probability", "probabilities", "warnings",
    }  # fmt: skip


# -- values as pandas writes them ----------------------------------------------------------------------


def test_frames_are_read_as_the_scoring_client_writes_them(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    """NaN, whole numbers as floats, an index of texts, target and key beside the features."""
    frame = pd.DataFrame(rows_of(customer), index=["a", "b", "c"])
    frame["tenure"] = frame["tenure"].astype(float)
    frame["customerid"] = ["c-1", "c-2", "c-3"]
    frame["churn"] = [True, None, "unknown"]
    body = json.dumps({"dataframe_split": frame.to_dict(orient="split")})
    assert "NaN" in body
    for _ in range(3):
        assert post(CHURN, body).status_code == 200
    assert [row["totalcharges"] for row in logged()] == [29.85, None, 29.85] * 3
    assert [row["tenure"] for row in logged()] == [1, 30, 1] * 3
    keys = list(Prediction.objects.order_by("id").values_list("key", flat=True))
    assert keys == ["c-1", "c-2", "c-3"] * 3
    records = json.loads(frame.to_json(orient="records"))
    assert post(CHURN, {"dataframe_records": records}).status_code == 200


def test_dates_are_read_as_pandas_writes_them(orders: ModelVersion, post: Post, api: APIClient) -> None:  # noqa: F811
    frame = pd.DataFrame({
        "ordered": pd.to_datetime(["2020-02-29", None, "2021-01-01"]),
        "seen_at": pd.to_datetime(
            ["2020-02-29 12:30:00", "2020-02-29 12:30:00.25", "2021-01-01"], format="ISO8601"
        ),
        "size": [1, 2, 3],
    })  # fmt: skip
    cells = frame.to_dict(orient="split")
    cells["data"] = [
        [each.isoformat() if isinstance(each, (pd.Timestamp, type(pd.NaT))) else each for each in row]
        for row in cells["data"]
    ]
    address = "/models/orders/invocations"
    assert cells["data"][1][0] == "NaT", "as the scoring client's encoder writes it"
    iso = json.loads(frame.to_json(orient="records", date_format="iso"))
    for body in ({"dataframe_split": cells}, {"dataframe_records": iso}) * 3:
        response = post(address, body)
        assert response.status_code == 200, response.content
    expected = [
        {"ordered": "2020-02-29", "seen_at": "2020-02-29T12:30:00Z", "size": 1.0},
        {"ordered": None, "seen_at": "2020-02-29T12:30:00.250000Z", "size": 2.0},
        {"ordered": "2021-01-01", "seen_at": "2021-01-01T00:00:00Z", "size": 3.0},
    ]
    assert logged() == expected * 6
    authorization = str(api._credentials["HTTP_AUTHORIZATION"])
    assert fast_path.ask(FastPath(), address, {"dataframe_split": cells}, authorization) is not None
    assert logged()[-3:] == expected
    for row in iso:  # milliseconds, as older releases of pandas write them
        row["seen_at"] = 1_582_979_400_000
    message = assert_refused(post(address, {"dataframe_records": iso}), 400, INVALID)
    assert 'date_format="iso"' in message


@pytest.mark.parametrize("index", [True, False])
def test_csv_is_read_as_pandas_writes_it(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any], index: bool
) -> None:
    rows = rows_of(customer)
    native = post(NATIVE, rows).json()["predictions"]
    expected = logged()
    text = pd.DataFrame(rows).to_csv(index=index)
    for kind in ("text/csv", "text/csv; charset=utf-8"):
        response = post(CHURN, text, content_type=kind)
        assert response.json()["predictions"] == [each["prediction"] for each in native]
        assert logged()[-3:] == expected
    reply = fast_path.ask(
        FastPath(), CHURN, text.encode(), str(api._credentials["HTTP_AUTHORIZATION"]), content_type="text/csv"
    )
    assert reply is not None
    assert json.loads(reply.body)["predictions"] == [each["prediction"] for each in native]
    assert logged()[-3:] == expected


# -- what is refused -----------------------------------------------------------------------------------

UNREAD = "BAD_REQUEST"
INVALID = "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ([{}], UNREAD, "exactly one of dataframe_split, dataframe_records, instances, inputs"),
        ({}, UNREAD, "exactly one of"),
        ({"messages": []}, UNREAD, "exactly one of"),
        ({"data": {"ndarray": [[1]]}}, UNREAD, "exactly one of"),
        ({"columns": ["tenure"], "data": [[1]]}, UNREAD, "exactly one of"),
        ({"instances": [{}], "inputs": [{}]}, UNREAD, "the body has instances and inputs; send"),
        ({"dataframe_records": {"tenure": [1]}}, UNREAD, '"dataframe_records" must be an array of objects'),
        ({"dataframe_records": "x"}, UNREAD, "must be an array of objects"),
        ({"inputs": 5}, UNREAD, "an array of objects, an array of rows, or an object of columns"),
        ({"dataframe_split": [[1]]}, UNREAD, "columns (the names), data (the rows)"),
        ({"dataframe_split": {"data": [[1]]}}, UNREAD, "columns (the names), data (the rows)"),
        ({"dataframe_split": {"columns": [0], "data": [[1]]}}, INVALID, "must be an array of names"),
        (
            {"dataframe_split": {"columns": ["tenure", "tenure"], "data": [[1, 2]]}},
            INVALID,
            "tenure is given twice in columns",
        ),
        (
            {"dataframe_split": {"columns": ["tenure"], "data": [[1], [1, 2]]}},
            INVALID,
            'row 1 of "data" holds 2 values; "columns" has 1 names',
        ),
        (
            {"dataframe_split": {"columns": ["tenure"], "data": [[1]], "index": [0, 1]}},
            INVALID,
            "one label for each row",
        ),
        (
            {"inputs": {"tenure": [1], "gender": ["a", "b"]}},
            INVALID,
            "different lengths (tenure 1, gender 2)",
        ),
        ({"inputs": {"tenure": []}}, INVALID, "the columns are empty"),
        ({"instances": []}, INVALID, '"instances" is empty'),
        ({"inputs": [1, 2, 3]}, UNREAD, "may be one row or one column"),
        (
            {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}]},
            UNREAD,
            "/v2/models/churn",
        ),
        ({"instances": [[1, 2]]}, INVALID, 'row 0 of "instances" holds 2 values'),
        ({"instances": [[[1, 2]]]}, INVALID, 'row 0 of "instances" holds 1 values'),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_a_form_that_is_ambiguous_or_unknown_is_refused_in_plain_words(
    churn: ModelVersion, post: Post, body: Any, code: str, said: str
) -> None:
    assert said in assert_refused(post(CHURN, body), 400, code)
    assert not Prediction.objects.exists()


def test_rows_by_position_have_the_features_alone(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    values = list(customer.values())
    for row in (["7590-VHVEG", *values], [*values, "no"], ["7590-VHVEG", *values, "no"], values[:-1]):
        message = assert_refused(post(CHURN, {"inputs": [values, row]}), 400, INVALID)
        assert (
            f'row 1 of "inputs" holds {len(row)} values; without names, a row must hold the 19 features'
            in message
        )
        assert "gender, seniorcitizen, partner," in message
        assert "without the target churn and the key customerid" in message
        assert '"dataframe_split"' in message
    # Another order is noticed where types or levels differ.
    message = assert_refused(post(CHURN, {"inputs": [values[::-1]]}), 400, INVALID)
    assert "row 0, column gender: gender must be one of its levels, sent: 29.85" in message
    assert not Prediction.objects.exists()


def test_every_fault_is_named_with_row_and_column(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    rows = [customer, customer | {"tenure": "abc"}, customer | {"contract": "weekly", "colour": "red"}]
    for form in ("dataframe_records", "instances", "inputs"):
        message = assert_refused(post(CHURN, {form: rows}), 400, INVALID)
        expected = "2 of 3 instances are invalid: row 1, column tenure: tenure must be a whole number"
        assert message.startswith(expected)
        assert "sent: 'abc'" in message
        assert "row 2, column contract" in message
        assert "accepted: month-to-month, one_year, two_year" in message
        assert "row 2, column colour: colour is not a field of this model" in message
    for body in forms(rows[:2]).values():
        message = assert_refused(post(CHURN, body), 400, INVALID)
        assert message.startswith("1 of 2 instances is invalid: row 1, column tenure: tenure must be a whole")
    lines = pd.DataFrame(rows[:2]).to_csv(index=False)
    message = assert_refused(post(CHURN, lines, content_type="text/csv"), 400, INVALID)
    assert "row 1, line 3, column tenure" in message
    assert not Prediction.objects.exists()


def test_missing_and_extra_columns_are_refused(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    names, values = list(customer), list(customer.values())
    missing = {"columns": names[1:], "data": [values[1:]]}
    message = assert_refused(post(CHURN, {"dataframe_split": missing}), 400, INVALID)
    assert "row 0, column gender: gender is missing" in message
    extra = {"columns": [*names, "x"], "data": [[*values, 1]]}
    message = assert_refused(post(CHURN, {"dataframe_split": extra}), 400, INVALID)
    assert "row 0, column x: x is not a field of this model" in message
    nullable = {"columns": names[:-1], "data": [values[:-1]]}
    assert post(CHURN, {"dataframe_split": nullable}).status_code == 200
    assert logged()[0]["totalcharges"] is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"instances": [%s], "instances": [%s]}', "instances is given twice"),
        (b'{"dataframe_split": {"columns": [], "columns": [%s], "data": [%s]}}', "columns is given twice"),
        (b'{"inputs": {"tenure": [1], "tenure": [%s%s]}}', "tenure is given twice"),
        (b'{"dataframe_records": [%s,%s', "not valid JSON"),
        (b'{"dataframe_records": [%s,%s]} x', "not valid JSON"),
    ],
)
def test_a_name_that_stands_twice_is_refused(
    churn: ModelVersion, post: Post, customer: dict[str, Any], body: bytes, said: str
) -> None:
    row = json.dumps(customer).encode() if b"tenure" not in body else b""
    assert said in assert_refused(post(CHURN, body % (row, row)), 400, UNREAD if "JSON" in said else INVALID)
    assert not Prediction.objects.exists()


def test_a_flat_list_is_a_column_where_the_model_has_one_feature(declare: Declare, post: Post) -> None:  # noqa: F811
    model = declare("lines", ONE_FEATURE)
    csv = b"x,y\n" + b"".join(b"%d,%d\n" % (at, 2 * at) for at in range(400))
    run = run_requests.request(
        model, uploads.from_csv(model, io.BytesIO(csv), by=None, source="test"), mode="replace",
        by=None, activation_reason="wanted",
    )  # fmt: skip
    assert run_requests.execute(run.pk)
    for body in ({"inputs": [1, 2.5]}, {"instances": [[1], [2.5]]}, {"inputs": {"x": [1, 2.5]}}):
        answer = post("/models/lines/invocations", body).json()
        assert answer["predictions"] == pytest.approx([2, 5], abs=0.2)
    assert logged() == [{"x": 1.0}, {"x": 2.5}] * 3
    assert "holds no array" in assert_refused(
        post("/models/lines/invocations", {"inputs": [[1], 2]}), 400, INVALID
    )


ONE_FEATURE = """
from vigia_ml import Column, DatasetSchema, Gate, ModelDeclaration


def build(seed):
    from sklearn.linear_model import LinearRegression

    return LinearRegression()


MODEL = ModelDeclaration(
    name="lines", title="Lines", description="", task="regression", build=build, primary_metric="r2",
    schema=DatasetSchema(columns=(Column("x", "number"),), target=Column("y", "number")), gate=Gate(),
    policy="always",
)
"""


# -- the one path --------------------------------------------------------------------------------------


def test_token_bearer_and_basic_are_accepted_and_nothing_else(
    churn: ModelVersion, client_user: User, customer: dict[str, Any]
) -> None:
    key = client_keys.issue(client_user)
    basic = base64.b64encode(f"anyone:{key}".encode()).decode()
    body = {"dataframe_records": [customer]}
    plain = APIClient()
    for scheme in (f"Token {key}", f"Bearer {key}", f"Basic {basic}"):
        for _ in range(2):
            response = plain.post(CHURN, body, "json", headers={"Authorization": scheme})
            assert response.status_code == 200, response.content
        assert fast_path.ask(FastPath(), CHURN, body, scheme) is not None
    assert Prediction.objects.count() == 9
    assert set(Prediction.objects.values_list("client_id", flat=True)) == {client_user.pk}
    assert_refused(plain.post(CHURN, body, "json"), 401, "UNAUTHENTICATED")
    for scheme in ("Bearer nobodyskey", "Basic nonsense"):
        response = plain.post(CHURN, body, "json", headers={"Authorization": scheme})
        assert "the key is unknown" in assert_refused(response, 401, "UNAUTHENTICATED")
    assert Prediction.objects.count() == 9


def test_other_refusals_have_mlflows_shape(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any], settings: Any
) -> None:
    stranger = keyed(User.objects.create_user("stranger"))
    body = {"dataframe_records": [customer]}
    assert_refused(stranger.post(CHURN, body, "json"), 403, "PERMISSION_DENIED")
    message = assert_refused(post("/models/nothing/invocations", body), 404, "RESOURCE_DOES_NOT_EXIST")
    assert "no registered model is called 'nothing'" in message
    assert_refused(post("/models/churn/invocation", body), 404, "ENDPOINT_NOT_FOUND")
    assert_refused(api.get(CHURN), 405, "BAD_REQUEST")
    for kind in ("application/vnd.apache.parquet", "application/x-www-form-urlencoded"):
        message = assert_refused(post(CHURN, json.dumps(body), content_type=kind), 415, "BAD_REQUEST")
        assert "send application/json or text/csv" in message
    assert_refused(post(CHURN, body, content_type="application/json; charset=latin-1"), 415, "BAD_REQUEST")
    assert "the body is empty" in assert_refused(post(CHURN, b""), 400, "BAD_REQUEST")
    message = assert_refused(post("/models/movies/invocations", body), 409, "RESOURCE_CONFLICT")
    assert "movies does not support" in message
    assert "no version of cars is active" in assert_refused(
        post("/models/cars/invocations", body), 503, "TEMPORARILY_UNAVAILABLE"
    )
    settings.PREDICT_MAX_ROWS = 2
    for form in forms([customer] * 3).values():
        assert "at most 2 instances" in assert_refused(post(CHURN, form), 413, "BAD_REQUEST")
    settings.PREDICT_MAX_BYTES = 100
    assert not Prediction.objects.exists()
    client = Client(headers={"accept": "text/html"})
    assert client.get("/models/churn/none").headers["Content-Type"] == "application/json"


def test_a_body_without_content_type_is_json(
    churn: ModelVersion, api: APIClient, customer: dict[str, Any]
) -> None:
    raw = json.dumps({"dataframe_records": [customer]})
    assert api.generic("POST", CHURN, raw, content_type="").status_code == 200
    authorization = str(api._credentials["HTTP_AUTHORIZATION"])
    head = fast_path.head_of(CHURN, host="testserver", authorization=authorization)
    assert head is not None
    reply = fast_path.ended(FastPath().begin(head, raw.encode()))
    assert reply is not None
    assert reply.status == 200
    assert Prediction.objects.count() == 2


def test_a_repeated_idempotency_key_gives_the_stored_answer_in_the_same_shape(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any]
) -> None:
    body = {"dataframe_records": [customer]}
    first = post(CHURN, body, **{"Idempotency-Key": "one"})
    again = post(CHURN, body, **{"Idempotency-Key": "one"})
    assert again.content == first.content
    assert again.headers["Idempotent-Replayed"] == "true"
    authorization = str(api._credentials["HTTP_AUTHORIZATION"])
    quick = fast_path.ask(FastPath(), CHURN, body, authorization, idempotency_key="two")
    assert quick is not None
    raw = json.dumps(body)
    assert post(CHURN, raw, **{"Idempotency-Key": "two"}).content == quick.body
    message = assert_refused(
        post(CHURN, {"inputs": [customer]}, **{"Idempotency-Key": "one"}), 409, "RESOURCE_CONFLICT"
    )
    assert "send a new key" in message
    assert Prediction.objects.count() == 2


def test_answers_and_refusals_are_counted_with_their_route(
    churn: ModelVersion,
    post: Post,
    api: APIClient,
    customer: dict[str, Any],
    scraper: APIClient,  # noqa: F811
) -> None:
    before = scraped(scraper)
    assert post(CHURN, {"dataframe_records": [customer] * 3}).status_code == 200
    authorization = str(api._credentials["HTTP_AUTHORIZATION"])
    assert fast_path.ask(FastPath(), CHURN, {"dataframe_records": [customer]}, authorization) is not None
    assert_refused(post(CHURN, {"inputs": [customer | {"tenure": "x"}]}), 400, INVALID)
    after = scraped(scraper)

    def increase(name: str, **labels: str) -> float:
        return sum(
            number - before.get((metric, every), 0)
            for (metric, every), number in after.items()
            if metric == name and labels.items() <= dict(every).items()
        )

    route = "/models/{model}/invocations"
    assert increase("vigia_requests_total", route=route, method="POST", status="200") == 2
    assert increase("vigia_requests_total", route=route, method="POST", status="400") == 1
    assert increase("vigia_predictions_total", model="churn", version="1") == 4
    assert increase("vigia_prediction_seconds_count", model="churn") == 2
    assert increase("vigia_refusals_total", code="invalid_input") == 1
    assert increase("vigia_validation_errors_total", code="not_an_integer") == 1


def test_a_retrain_between_two_requests_answers_with_the_new_version(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any]
) -> None:
    body = {"dataframe_records": [customer]}
    authorization = str(api._credentials["HTTP_AUTHORIZATION"])
    path = FastPath()
    assert post(CHURN, body).json()["version"] == 1
    pending = fast_path.begin(path, CHURN, body, authorization)
    second = train_sample("churn", rows=600)
    assert second.number == 2
    assert fast_path.ended(pending) is None, "the fence: Django answers"
    assert post(CHURN, body).json()["version"] == 2
    reply = fast_path.ask(path, CHURN, body, authorization)
    assert reply is not None
    assert json.loads(reply.body)["version"] == 2
    versions = Prediction.objects.order_by("id").values_list("version__number", flat=True)
    assert list(versions) == [1, 2, 2]


def test_a_log_that_cannot_be_written_gives_mlflows_503(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any]
) -> None:
    body = {"dataframe_records": [customer]}
    assert post(CHURN, body).status_code == 200
    pending = fast_path.begin(FastPath(), CHURN, body, str(api._credentials["HTTP_AUTHORIZATION"]))
    assert pending is not None
    reply = pending.refused(LogUnavailable())
    assert reply.status == 503
    assert json.loads(reply.body)["error_code"] == "TEMPORARILY_UNAVAILABLE"


# -- what clients ask besides --------------------------------------------------------------------------


def test_health_and_version_need_no_key_and_a_models_do(churn: ModelVersion, api: APIClient) -> None:
    plain = Client()
    assert plain.get("/ping").status_code == 200
    assert plain.get("/health").json()["status"] == "ready"
    assert plain.get("/version").content.decode() == VERSION
    assert plain.head("/version").status_code == 200
    for name in ("ping", "health", "version"):
        assert_refused(plain.get(f"/models/churn/{name}"), 401, "UNAUTHENTICATED")
        assert_refused(api.get(f"/models/none/{name}"), 404, "RESOURCE_DOES_NOT_EXIST")
    assert api.get("/models/churn/ping").content == b"\n"
    assert api.get("/models/churn/health").status_code == 200
    assert api.get("/models/churn/version").content.decode() == VERSION
    assert_refused(api.get("/models/cars/ping"), 503, "TEMPORARILY_UNAVAILABLE")


def test_endpoints_are_the_models_for_which_the_key_may_predict(
    churn: ModelVersion, api: APIClient, client_user: User
) -> None:
    listed = api.get("/api/2.0/endpoints/").json()
    assert listed["next_page_token"] is None
    assert "churn" in [each["name"] for each in listed["endpoints"]]
    assert "movies" not in [each["name"] for each in listed["endpoints"]]
    one = api.get("/api/2.0/endpoints/churn").json()
    assert one in listed["endpoints"]
    assert one["endpoint_url"] == "/endpoints/churn/invocations"
    stranger = keyed(User.objects.create_user("stranger"))
    assert stranger.get("/api/2.0/endpoints/").json()["endpoints"] == []
    assert_refused(stranger.get("/api/2.0/endpoints/churn"), 403, "PERMISSION_DENIED")
    assert_refused(Client().get("/api/2.0/endpoints/"), 401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    "cell", ["", " ", "NaN", "NA", "1,5", "1.5", "x;y", '"', "a\nb", "\u00e9\u0000", "1" * 400]
)
def test_any_cell_of_a_csv_is_read_or_refused(
    churn: ModelVersion, post: Post, customer: dict[str, Any], cell: str
) -> None:
    for column in ("totalcharges", "tenure", "contract"):
        before = Prediction.objects.count()
        text = pd.DataFrame([customer | {column: cell}]).to_csv(index=False).encode()
        response = post(CHURN, text, content_type="text/csv")
        if response.status_code == 200:
            assert (column, cell.strip(), logged()[-1][column]) in (
                ("totalcharges", "", None), ("totalcharges", "1.5", 1.5), ("totalcharges", "1,5", 1.5),
            )  # fmt: skip
            continue
        assert_refused(response, 400, INVALID)
        assert Prediction.objects.count() == before


# -- any body ------------------------------------------------------------------------------------------

CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 80), st.integers(), st.floats(), st.text(max_size=6),
    st.sampled_from(["yes", "no", "one_year", "NaT", [], {}, [1], {"a": 1}]),
)  # fmt: skip
JSON = st.recursive(
    CELLS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def bodies(draw: st.DrawFn, valid: dict[str, Any], schema: DatasetSchema) -> bytes:
    """Draws a valid body with some changes, as JSON text."""
    added = draw(st.sampled_from([[], [], ["_key"], [str(schema.key), schema.target.name], ["x"]]))
    rows = [valid | dict.fromkeys(added, "7") for _ in range(draw(st.integers(1, 10)))]
    for at in draw(st.lists(st.integers(0, len(rows) - 1), max_size=2)):
        rows[at] = rows[at] | {draw(st.sampled_from(list(rows[at]))): draw(CELLS)}
    body: Any = copy.deepcopy(forms(rows)[draw(st.sampled_from(list(forms([{}]))))])
    at: Any = body
    for _ in range(draw(st.integers(0, 4))):  # walks down and changes something there
        inner = [
            each for each in (at.values() if isinstance(at, dict) else at) if isinstance(each, (dict, list))
        ]
        if not inner:
            break
        at = draw(st.sampled_from(inner))
    match draw(st.integers(0, 9)):
        case 0 if isinstance(at, dict) and at:
            at[draw(st.sampled_from([*at, "index", "columns", "data", "inputs"]))] = draw(JSON)
        case 0 if isinstance(at, list) and at:
            at[draw(st.integers(0, len(at) - 1))] = draw(JSON)
        case 1 if at:
            at.pop(draw(st.sampled_from(list(at)))) if isinstance(at, dict) else at.pop()
        case 2 if isinstance(at, list):
            at.append(draw(JSON))
        case 3:
            body = draw(JSON)
    text = json.dumps(body, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0 and text:
        cut = draw(st.integers(0, len(text) - 1))
        text = (
            text[:cut] + draw(st.sampled_from([b"", b",", b'"', b":", b"\xff", b"{", b"]"])) + text[cut + 1 :]
        )
    return text


@pytest.mark.parametrize("schema", ["churn", "every kind of column"])
def test_the_quick_reader_accepts_no_more_than_the_full_one_and_neither_fails(
    churn: ModelVersion, customer: dict[str, Any], schema: str
) -> None:
    served = engine_cache.served(churn.registered_model)
    valid = customer
    if schema != "churn":
        served = dataclasses.replace(served, schema=SMALL, compiled=CompiledSchema(SMALL))
        valid = VALID
    for form, body in forms([valid]).items():
        for _ in range(3):  # the reader of objects learns another spelling at its second use
            mlflow.read_json(served, json.dumps(body).encode())
        slow = form in ("inputs by column", "with unknown fields")
        assert (mlflow.read_quickly(served, json.dumps(body).encode()) is None) == slow, form
    accepted = 0

    @settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
    @given(bodies(valid, served.schema))
    @example(b'{"params": {"a": 1, "a": 2}, "inputs": [{}]}')
    def agree(body: bytes) -> None:
        nonlocal accepted
        known = mlflow.read_quickly(served, body)
        with_fresh = dataclasses.replace(served, compiled=CompiledSchema(served.schema))
        try:
            read = mlflow.read_json(with_fresh, body)
        except (InvalidRows, VigiaError):
            assert known is None, body
            return
        accepted += 1
        if known is not None:
            assert known.values == read.values
            assert [list(map(type, row)) for row in known.values] == [
                list(map(type, row)) for row in read.values
            ]
            assert known.keys == read.keys

    agree()
    assert accepted


def test_no_body_gives_a_500_and_every_answer_is_logged_as_sent(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any]
) -> None:
    authorization = str(api._credentials["HTTP_AUTHORIZATION"])
    path = FastPath()
    schema = churn.dataset_schema

    @settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
    @given(bodies(customer, schema))
    def ask(body: bytes) -> None:
        before = Prediction.objects.count()
        quick = fast_path.ask(path, CHURN, body, authorization)
        response = post(CHURN, body)
        if response.status_code != 200:
            assert quick is None
            assert_refused(response, 400, json.loads(response.content)["error_code"])
            assert Prediction.objects.count() == before
            return
        answers = [response.json()] + ([] if quick is None else [json.loads(quick.body)])
        sent = [schema.read(row) for row in as_rows(json.loads(body), schema.names)]
        for answer in answers:
            assert len(answer["predictions"]) == len(answer["ids"]) == len(sent)
            for identifier, prediction, instance in zip(
                answer["ids"], answer["predictions"], sent, strict=True
            ):
                row = Prediction.objects.get(pk=identifier)
                assert isinstance(instance, Instance)
                assert (row.inputs, row.key) == (instance.values, instance.key)
                assert row.prediction == prediction
        assert Prediction.objects.count() == before + len(answers) * len(sent)

    ask()


def as_rows(body: dict[str, Any], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Returns the rows of an accepted body as pandas reads them, without the service's reader."""
    if "dataframe_split" in body:
        split = body["dataframe_split"]
        return [dict(zip(split["columns"], row, strict=True)) for row in split["data"]]
    [rows] = [body[name] for name in ("dataframe_records", "instances", "inputs") if name in body]
    if isinstance(rows, dict):
        if not isinstance(next(iter(rows.values())), list):
            return [rows]
        return [dict(zip(rows, cells, strict=True)) for cells in zip(*rows.values(), strict=True)]
    return [row if isinstance(row, dict) else dict(zip(names, row, strict=True)) for row in rows]


@pytest.mark.parametrize("kind", [b"text/csv", b"Text/CSV", b"TEXT/CSV; charset=utf-8"])
def test_the_event_loop_reads_no_long_csv_however_its_type_is_spelt(kind: bytes) -> None:
    head = RequestHead(path="/models/churn/invocations", authorization=b"", content_type=kind)
    assert FastPath().is_inline(head, INLINE_CSV_BYTES)
    assert not FastPath().is_inline(head, INLINE_CSV_BYTES + 1)


def test_one_idempotency_key_on_two_protocols_is_refused_and_logs_once(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any]
) -> None:
    """The same body is valid on the native route; its answer has another shape there."""
    native, body = "/api/v1/models/churn/predictions/", {"instances": [customer]}
    authorization = str(api._credentials["HTTP_AUTHORIZATION"])
    for path in (native, CHURN):
        assert post(path, body).status_code == 200
    for first, second, key in ((native, CHURN, "one"), (CHURN, native, "two")):
        before = Prediction.objects.count()
        assert post(first, body, **{"Idempotency-Key": key}).status_code == 200
        assert fast_path.ask(FastPath(), second, body, authorization, idempotency_key=key) is None
        refused = post(second, body, **{"Idempotency-Key": key})
        assert refused.status_code == 409
        assert "send a new key" in refused.content.decode()
        assert Prediction.objects.count() == before + 1
