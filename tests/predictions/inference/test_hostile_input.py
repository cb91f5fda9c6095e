"""Rubbish in: a clear 4xx in the one shape, nothing logged, never a 500."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from rest_framework.test import APIClient

from predictions.models import Prediction
from tests.conftest import Post, assert_error
from training.models import ModelVersion

CHURN = "/api/v1/models/churn/predictions/"
pytestmark = pytest.mark.django_db(transaction=True)


def with_value(customer: dict[str, Any], field: str, literal: str) -> bytes:
    """The customer's JSON with `literal` standing, as it is, where the field's value was."""
    text = json.dumps({**customer, field: "@@"})
    return text.replace('"@@"', literal).encode()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty_body"),
        (b"   ", "empty_body"),
        (b"{", "invalid_json"),
        (b'{"a": 1,}', "invalid_json"),
        (b"\xff\xfe\x00", "not_utf8"),
        (b'{"gender": "\xe9"}', "not_utf8"),
        (b"[" * 100_000, "too_deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
        (b"[" * 100_000 + b"]" * 100_000, "too_deep"),
        (b"null", "invalid_input"),
        (b"12", "invalid_input"),
        (b'"text"', "invalid_input"),
        (b"true", "invalid_input"),
        (b"[]", "invalid_input"),
        (b"{}", "invalid_input"),
        (b"[1, null, [], {}]", "invalid_input"),
        (b"[[]]", "invalid_input"),
        (b"NaN", "invalid_input"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_body_without_an_instance_is_refused(
    churn: ModelVersion, post: Post, body: bytes, code: str
) -> None:
    assert_error(post(CHURN, body), 400, code)
    assert not Prediction.objects.exists()


@pytest.mark.parametrize(
    ("field", "literal", "code"),
    [
        ("tenure", "NaN", "not_finite"),
        ("monthlycharges", "Infinity", "not_finite"),
        ("monthlycharges", "-Infinity", "not_finite"),
        ("monthlycharges", "1e999", "not_finite"),
        ("monthlycharges", '"nan"', "not_a_number"),
        ("monthlycharges", '"29.85"', "not_a_number"),
        ("monthlycharges", "true", "not_a_number"),
        ("monthlycharges", "[29.85]", "not_a_number"),
        ("monthlycharges", '{"a": 1}', "not_a_number"),
        ("monthlycharges", "null", "null_not_allowed"),
        ("monthlycharges", "-1", "out_of_bounds"),
        ("totalcharges", "1e300", "out_of_bounds"),
        ("totalcharges", "1" * 5000, "not_finite"),
        ("totalcharges", "1" * 350, "not_finite"),
        ("tenure", "9" * 5000, "not_finite"),
        ("tenure", "1.5", "not_an_integer"),
        ("tenure", "true", "not_an_integer"),
        ("seniorcitizen", "2", "not_a_boolean"),
        ("seniorcitizen", '"maybe"', "not_a_boolean"),
        ("gender", "1", "not_a_level"),
        ("gender", "null", "null_not_allowed"),
        ("gender", '"x\\u0000y"', "bad_text"),
        ("gender", '"\\ud800"', "bad_text"),
        ("gender", '"' + "x" * 100_000 + '"', "too_long"),
        ("contract", '"weekly"', "not_a_level"),
        ("contract", '""', "not_a_level"),
    ],
    ids=lambda value: value[:24],
)
def test_a_bad_value_is_named_with_row_field_and_code(
    churn: ModelVersion, post: Post, customer: dict[str, Any], field: str, literal: str, code: str
) -> None:
    error = assert_error(post(CHURN, with_value(customer, field, literal)), 400, "invalid_input")
    [fault] = error["details"]
    assert (fault["row"], fault["field"], fault["code"]) == (0, field, code)
    assert len(json.dumps(fault.get("value"))) < 200, "a huge value is not echoed whole"
    assert not Prediction.objects.exists()


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ('"tenure": 5', "duplicate_field"),
        ('"Tenure": 5', "duplicate_field"),
        ('"salary": 5', "unknown_field"),
        ('"\\u0000": 5', "unknown_field"),
        ('"\\ud800": 5', "unknown_field"),
        ('"' + "n" * 100_000 + '": 5', "unknown_field"),
        ('"_key": "' + "k" * 201 + '"', "too_long"),
        ('"_key": "a\\u0000b"', "bad_text"),
        ('"_key": "\\udfff"', "bad_text"),
        ('"_key": [1]', "bad_key"),
        ('"_key": 1.5', "bad_key"),
    ],
    ids=lambda value: value[:24],
)
def test_a_bad_field_is_named(
    churn: ModelVersion, post: Post, customer: dict[str, Any], extra: str, code: str
) -> None:
    body = json.dumps(customer)[:-1] + f", {extra}}}"
    error = assert_error(post(CHURN, body), 400, "invalid_input")
    assert [fault["code"] for fault in error["details"]] == [code]
    assert len(json.dumps(error)) < 5_000
    assert not Prediction.objects.exists()


def test_missing_fields_are_all_named(churn: ModelVersion, post: Post, customer: dict[str, Any]) -> None:
    del customer["tenure"], customer["contract"], customer["totalcharges"]
    error = assert_error(post(CHURN, customer), 400, "invalid_input")
    named = {(fault["field"], fault["code"]) for fault in error["details"]}
    assert named == {("tenure", "missing_field"), ("contract", "missing_field")}, "totalcharges may be null"


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("", 415),
        ("text/plain", 415),
        ("application/xml", 415),
        ("application/octet-stream", 415),
        ("nonsense", 415),
        ("application/json; charset=latin-1", 415),
        ("application/json; charset=utf-16", 415),
        ("text/csv; charset=cp1252", 415),
        ("application/json; charset=UTF-8", 200),
        ("application/json;charset=utf8", 200),
    ],
)
def test_the_content_type_decides(
    churn: ModelVersion, post: Post, customer: dict[str, Any], content_type: str, status: int
) -> None:
    answered = post(CHURN, customer, content_type)
    if status == 200:
        assert answered.status_code == 200
    else:
        assert_error(answered, status, "unsupported_media_type")
        assert not Prediction.objects.exists()


def test_compressed_bodies_are_refused(churn: ModelVersion, post: Post, customer: dict[str, Any]) -> None:
    for encoding in ("gzip", "br", "deflate"):
        refused = post(CHURN, customer, **{"Content-Encoding": encoding})
        assert_error(refused, 415, "unsupported_encoding")
    assert not Prediction.objects.exists()


def test_too_large_a_body_is_refused_before_it_is_read(
    churn: ModelVersion, post: Post, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from predictions.views.predictions import PredictView

    monkeypatch.setattr(PredictView, "max_bytes", 1_000)
    for content_type in ("application/json", "text/csv"):
        assert_error(post(CHURN, b" " * 1_001, content_type), 413, "too_large")


def test_too_many_rows_are_refused(
    churn: ModelVersion, post: Post, customer: dict[str, Any], settings: Any
) -> None:
    settings.PREDICT_MAX_ROWS = 3
    assert_error(post(CHURN, [customer] * 4), 413, "too_many_rows")
    assert post(CHURN, [customer] * 3).status_code == 200
    header, row = ",".join(customer), ",".join(str(value) for value in customer.values())
    assert_error(post(CHURN, "\n".join([header, *[row] * 4]), "text/csv"), 413, "too_many_rows")
    assert post(CHURN, "\n".join([header, *[row] * 3]), "text/csv").status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\n\n", "empty_file"),
        (b"gender,tenure\nfemale,1\n", "missing_column"),
        (b"a\x00b;c\n1;2\n", "unknown_column"),
        (b'"gender', "malformed_csv"),
        (b"\xff\xfeg\x00", "not_utf8"),
        ("gender,ñ\n".encode("latin-1"), "not_utf8"),
        (b"gender,gender\n1,2", "duplicate_column"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_csv_that_does_not_match_is_refused(
    churn: ModelVersion, post: Post, body: bytes, code: str
) -> None:
    error = assert_error(post(CHURN, body, "text/csv"), 400, "invalid_input")
    assert code in {fault["code"] for fault in error["details"]}


@pytest.mark.parametrize(
    "name",
    ["nope", "CHURN", "churn%00", "..%2F..%2Fetc%2Fpasswd", "%2e%2e", "ch urn", "churn'--", "x" * 300, "<b>"],
)
def test_an_unknown_model_is_404(churn: ModelVersion, api: APIClient, name: str) -> None:
    for method in (api.get, api.post):
        refused = method(f"/api/v1/models/{name}/predictions/")
        assert refused.status_code == 404
        assert json.loads(refused.content)["error"]["code"] in ("unknown_model", "not_found")


def test_no_key_is_401_and_a_bad_key_too(churn: ModelVersion, customer: dict[str, Any]) -> None:
    anonymous = APIClient()
    for headers in (
        {},
        {"Authorization": "Token"},
        {"Authorization": "Digest x"},
        {"Authorization": "Token " + "a" * 64},
    ):
        refused = anonymous.post(CHURN, customer, format="json", headers=headers)
        code = "not_authenticated" if not headers else "bad_key"
        assert_error(refused, 401, code)
        assert refused.headers["WWW-Authenticate"].startswith("Token")
    for header in ("Basic !!!", "Basic eDp5", "Bearer \x00", "Token " + "a" * 100_000, "Token é"):
        assert_error(anonymous.get(CHURN, headers={"Authorization": header}), 401, "bad_key")
    assert not Prediction.objects.exists()


def test_a_form_has_each_field_once_and_as_text(
    churn: ModelVersion, api: APIClient, customer: dict[str, Any]
) -> None:
    for name, value, code in (
        ("tenure", ["1", "2"], "duplicate_field"),
        ("gender", SimpleUploadedFile("Male", b"Male"), "not_text"),
    ):
        refused = assert_error(
            api.post(CHURN, customer | {name: value}, format="multipart"), 400, "invalid_input"
        )
        assert [(each["field"], each["code"]) for each in refused["details"]] == [(name, code)]
    assert not Prediction.objects.exists()


def test_an_unsupported_method_is_405(churn: ModelVersion, api: APIClient) -> None:
    assert_error(api.delete(CHURN), 405, "method_not_allowed")
    assert_error(api.put(CHURN, {}, format="json"), 405, "method_not_allowed")
    assert_error(api.get("/predict"), 405, "method_not_allowed")


def test_a_missing_page_is_json_for_a_client_and_html_for_a_browser(db: None) -> None:
    browser = Client()
    assert_error(browser.get("/nothing"), 404, "not_found")
    shown = browser.get("/nothing", headers={"Accept": "text/html"})
    assert shown.status_code == 404
    assert shown.headers["Content-Type"].startswith("text/html")
    assert_error(browser.get("/api/v1/nothing", headers={"Accept": "text/html"}), 404, "not_found")
    hinted = assert_error(browser.post("/api/v1/models/churn/predictions"), 404, "not_found")
    assert "did you mean" in hinted["message"]


def test_an_unknown_host_is_refused_in_the_error_shape(db: None) -> None:
    assert_error(Client().get("/ping", headers={"Host": "evil.example"}), 400, "bad_host")


@pytest.mark.parametrize(
    "query",
    [
        "since=yesterday", "until=2026-13-45", "since=%00", "version=x", "version=0", "version=99999999999",
        "limit=-1", "limit=1e3", "cursor=nonsense", "since=9999999999999",
    ],
)  # fmt: skip
def test_a_bad_log_query_is_refused(churn: ModelVersion, api: APIClient, query: str) -> None:
    error = assert_error(api.get(f"{CHURN}?{query}"), 400, "invalid_input")
    assert error["details"][0]["field"] == query.split("=", maxsplit=1)[0]


def test_a_key_with_nul_in_a_log_query_finds_nothing(churn: ModelVersion, api: APIClient) -> None:
    assert api.get(f"{CHURN}?key=%00").json()["predictions"] == []


def test_a_small_body_with_many_faults_is_read_in_part(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    error = assert_error(post(CHURN, b"[" + b"{}," * 9_000 + b"{}]"), 400, "invalid_input")
    assert error["truncated"] is True
    assert error["message"].startswith("at least ")
    many = {f"name{n}": 1 for n in range(100_000)}
    error = assert_error(post(CHURN, {**customer, **many}), 400, "invalid_input")
    assert len(error["details"]) == 100


def test_head_needs_the_same_right_as_get(churn: ModelVersion, post: Post, customer: dict[str, Any]) -> None:
    from django.contrib.auth.models import Permission, User

    from tests.conftest import keyed

    post(CHURN, customer)
    caller = User.objects.create(username="caller")
    caller.user_permissions.add(Permission.objects.get(codename="predict"))
    assert keyed(caller).get(CHURN).status_code == 403
    assert keyed(caller).head(CHURN).status_code == 403


def test_basic_credentials_that_are_not_ascii_are_401(churn: ModelVersion) -> None:
    assert_error(APIClient().get(CHURN, headers={"Authorization": "Basic é"}), 401, "bad_key")


def test_probes_may_use_head_and_wrong_methods_are_405(db: None) -> None:
    expected = {"/ping": 200, "/healthz/live": 200, "/healthz/ready": 503}  # no version is active
    for path, status in expected.items():
        assert Client().head(path).status_code == status
        assert_error(Client().post(path), 405, "method_not_allowed")


def test_whole_numbers_beyond_2_to_the_53_are_refused_not_rounded(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    from vigia_ml.schema import Column
    from vigia_ml.schema.columns import BadValue

    with pytest.raises(BadValue):
        Column("n", "integer").from_json(2**53 + 1)


OTHER_CHARSETS = (
    "text/plain; charset=idna",
    "text/plain; charset=punycode",
    "text/plain; charset=utf-16",
    "text/plain; charset=latin-1",
    "text/plain; charset=undefined",
    "application/json; charset=hex",
    "application/json; charset=nonsense",
    "application/x-www-form-urlencoded; charset=idna",
    'multipart/form-data; boundary=b; charset="punycode"',
    "text/plain; charset*=bogus'en'%41",
)


@pytest.mark.parametrize(
    "path", ["/", "/ping", "/admin/login/", "/api/v1/models/", CHURN, "/api/schema/", "/nope"]
)
def test_another_charset_than_utf_8_is_refused_on_every_route(db: None, path: str) -> None:
    from web.wsgi import application

    for content_type in OTHER_CHARSETS:
        for method in ("GET", "POST"):
            answered = asked_raw(application, method, f"{path}?x=%ff", content_type, b"a=%ff")
            error = assert_error(answered, 415, "unsupported_media_type")
            assert "send" in error["message"]


def asked_raw(application: Any, method: str, path: str, content_type: str, body: bytes, **extra: str) -> Any:
    """Builds a request as the server does; the test client would read the content type first and fail."""
    import io
    from types import SimpleNamespace

    address, _, query = path.partition("?")
    environ = {
        "REQUEST_METHOD": method, "PATH_INFO": address, "QUERY_STRING": query, "CONTENT_TYPE": content_type,
        "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), "wsgi.url_scheme": "http",
        "wsgi.errors": io.StringIO(), "SERVER_NAME": "localhost", "SERVER_PORT": "80",
        "HTTP_HOST": "localhost",
        **extra,
    }  # fmt: skip
    response_start: list[Any] = []
    content = b"".join(application(environ, lambda status, headers: response_start.extend((status, headers))))
    return SimpleNamespace(
        status_code=int(response_start[0][:3]), headers=dict(response_start[1]), content=content
    )


@pytest.mark.parametrize(
    ("head", "refused"),
    [
        (b'name="a"\r\nContent-Type: text/plain; charset=idna', True),
        (b'name="a"\r\nContent-Type: text/plain; charset="utf-16"', True),
        (b'name="a"\r\ncontent-type: text/plain;Charset=punycode', True),
        (b'name="a"; filename="f.csv"\r\nContent-Type: text/csv; charset=cp1252', True),
        (b"name=\"a\"; filename*=idna''%ff", True),
        (b"name*=punycode''%ff", True),
        (b"name=\"a\"; filename*=UTF-8''%e2%82%ac.csv", False),
        (b'name="a"\r\nContent-Type: text/plain; charset=UTF-8', False),
        (b'name="a"; filename="charset=idna.csv"', False),
    ],
)
@pytest.mark.parametrize("path", ["/admin/login/", CHURN])
def test_a_part_of_a_form_in_another_charset_is_refused(
    churn: ModelVersion, api: APIClient, path: str, head: bytes, refused: bool
) -> None:
    from web.wsgi import application

    body = (
        b"--b\r\nContent-Disposition: form-data; "
        + head
        + b"\r\n\r\nContent-Type: x; charset=idna\r\n--b--\r\n"
    )
    extra = {"HTTP_COOKIE": f"csrftoken={'a' * 32}", **api._credentials}
    answered = asked_raw(application, "POST", path, "multipart/form-data; boundary=b", body, **extra)
    assert (answered.status_code == 415) == refused, answered.content
    if refused:
        assert "UTF-8" in assert_error(answered, 415, "unsupported_media_type")["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/models/churn/",
        "/api/v1/models/churn/datasets/",
        "/api/v1/models/churn/active/",
        "/api/v1/models/",
    ],
)
def test_an_unsupported_method_is_405_with_and_without_a_body(
    churn: ModelVersion, api: APIClient, path: str
) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for body in ("", "{}"):
            answered = api.generic(method, path, body, content_type="application/json" if body else "")
            assert_error(answered, 405, "method_not_allowed")
