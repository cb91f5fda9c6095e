"""Requests of the protocol that are refused: the error names row, column and what is accepted; nothing is
logged, and the fast path declines."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from django.conf import settings
from rest_framework.test import APIClient

from predictions.models import Prediction
from tests.conftest import Post
from tests.web.protocols.v2_requests import (
    CHURN,
    GRAPES,
    HEADER,
    SOME,
    Both,
    Row,
    binary,
    error_of,
    packed,
    request,
    tensors,
)  # fmt: skip
from training.models import ModelVersion

pytestmark = pytest.mark.django_db(transaction=True)
HUGE = 2**31


def tensor(**changed: Any) -> dict[str, Any]:
    return {"name": "acidity", "shape": [3], "datatype": "FP64", "data": [7.0, 2.0, 2.5]} | changed


def matrix(**changed: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [3, 2], "datatype": "FP32", "data": [7, 1, 2, 8, 2.5, 3]} | changed


SUGAR = {"name": "sugar", "shape": [3], "datatype": "FP64", "data": [1.0, 8.0, 3.0]}


def refused(both: Both, path: str, body: Any, words: str, json_length: str | None = None) -> None:
    """Asserts that Django refuses a request with these words and logs nothing, and the fast path declines."""
    before = Prediction.objects.count()
    plain, quick = both(path, body, json_length)
    error = error_of(plain, 413 if "at most" in words and "instances" in words else 400)
    assert words in error, (error, body)
    assert len(error) < 2_000
    assert quick is None, body
    assert Prediction.objects.count() == before


def load(both: Both, path: str, rows: Sequence[Row]) -> None:
    """Loads key and version into the fast path's snapshot, so that it declines for the body's sake alone."""
    assert both(path, request(rows))[1] is not None


INPUTS: list[tuple[Any, str]] = [
    ([], '"inputs" is empty'),
    ([tensor()], "sugar is missing; send it as FP64"),
    ([tensor(), SUGAR, SUGAR], "the input sugar is given twice"),
    ([tensor(), SUGAR, SUGAR | {"name": "salary"}], "salary is not a column"),
    ([tensor(), SUGAR | {"shape": [2], "data": [1, 2]}], "the shape has 2 rows; that of acidity has 3"),
    ([tensor(data=[1, 2]), SUGAR], "column acidity: data holds 2 elements; the shape [3] has 3"),
    ([tensor(data=[1, "2", 3]), SUGAR], "row 1, column acidity: data of FP64 must be a number"),
    ([tensor(data=[1, True, 3]), SUGAR], "row 1, column acidity: data of FP64 must be a number"),
    ([tensor(data=[1, {}, 3]), SUGAR], "row 1, column acidity: data of FP64 must be a number"),
    ([tensor(data=[1, None, 3]), SUGAR], "row 1, column acidity: acidity must not be null"),
    ([tensor(data=[1, 1e300, 3]), SUGAR], "row 1, column acidity: acidity must be between"),
    ([tensor(datatype="INT8", data=[1, 128, 3]), SUGAR], "whole number from -128 to 127, or null, sent: 128"),
    ([tensor(datatype="UINT8", data=[1, -1, 3]), SUGAR], "a whole number from 0 to 255, or null, sent: -1"),
    ([tensor(datatype="INT64", data=[1, 2.5, 3]), SUGAR], "row 1, column acidity: data of INT64 must"),
    ([tensor(datatype="INT64", data=[1, 2**70, 3]), SUGAR], "row 1, column acidity: data of INT64 must"),
    ([tensor(datatype="BOOL"), SUGAR], "data of BOOL must be true, false or null"),
    ([tensor(datatype="BYTES", data=["1", "2", "3"]), SUGAR], "row 0, column acidity: acidity must be a num"),
    ([tensor(datatype="BYTES"), SUGAR], "data of BYTES must be text or null, sent: 7.0"),
    ([tensor(datatype="FLOAT"), SUGAR], "'FLOAT' is not a datatype, accepted: BOOL, UINT8"),
    ([tensor(shape=[]), SUGAR], "shape must be 1 to 8 sizes"),
    ([tensor(shape=[1] * 9), SUGAR], "shape must be 1 to 8 sizes"),
    ([tensor(shape=[-3]), SUGAR], "shape must be 1 to 8 sizes"),
    ([tensor(shape=[2**62, 2**62]), SUGAR], "shape must be 1 to 8 sizes"),
    ([tensor(shape=[-1, -3]), SUGAR], "shape must be 1 to 8 sizes"),
    ([tensor(shape=[3, 2], data=[1] * 6), SUGAR], "column acidity: the shape must be [3] or [3, 1]"),
    ([tensor(shape=[3, 0], data=[]), SUGAR], "column acidity: the shape must be [3] or [3, 1]"),
    ([tensor(shape=[3, HUGE, HUGE, HUGE]), SUGAR], "data holds 3 elements; the shape [3, 2147483648"),
    ([tensor(shape=[0], data=[]), SUGAR], "the shape has no rows"),
    ([tensor(shape=[3, 1], data=[[1], [2], [3, 4]]), SUGAR], "nested data must have the shape [3, 1]"),
    ([tensor(shape=[3, 1], data=[[1], 2, 3]), SUGAR], "nested data must have the shape [3, 1]"),
    ([tensor(data=[[7, 2, 2.5]]), SUGAR], "nested data must have the shape [3]"),
    ([tensor(data=None), SUGAR], "column acidity: data is missing"),
    ([tensor(parameters={"binary_data_size": 24}), SUGAR], f"binary data need the header {HEADER}"),
    ([tensor(parameters={"shared_memory_region": "a"}), SUGAR], "shared memory is not supported"),
    ([matrix(shape=[2, 3])], "this model has 2, in this order, accepted: acidity, sugar"),
    ([matrix(datatype="BYTES", data=["1"] * 6)], "a matrix of all columns must hold numbers, not BYTES"),
    ([matrix(), SUGAR], "column x: x is not a column of this model, accepted: acidity, sugar"),
    ([matrix(shape=[3, 2, 1])], "x is not a column"),
    ([matrix(data=[7, 1, 2, 8, "a", 3])], "row 2, column x: data of FP32 must be a number"),
    ([matrix(data=[7, 1, 2, 8, None, 3])], "row 2, column acidity: acidity must not be null"),
]  # fmt: skip


def test_a_request_is_refused_in_words(grapes: ModelVersion, both: Both) -> None:
    load(both, GRAPES, SOME)
    for inputs, words in INPUTS:
        refused(both, GRAPES, {"inputs": inputs}, words)


BODIES: list[tuple[Any, str]] = [
    (b"", "the body is empty"),
    (b"{", "not valid JSON"),
    (b"[]", "send a JSON object"),
    (b"null", "send a JSON object"),
    (b"{}", "missing required field `inputs`"),
    (b'{"inputs": {}}', "Expected `array`, got `object` - at `$.inputs`"),
    (b'{"inputs": [1]}', "at `$.inputs[0]`"),
    (b'{"inputs": [{"name": "acidity", "datatype": "FP64"}]}', "missing required field `shape`"),
    (b'{"inputs": [{"name": "a", "shape": [1.5], "datatype": "FP64"}]}', "Expected `int`, got `float`"),
    (b'{"inputs": [{"name": "a", "shape": [true], "datatype": "FP64"}]}', "Expected `int`, got `bool`"),
    (b'{"inputs": [{"name": 1, "shape": [1], "datatype": "FP64"}]}', "Expected `str`, got `int`"),
    (
        b'{"inputs": [{"name": "a", "name": "b", "shape": [1], "datatype": "FP64"}]}',
        "'name' is given twice",
    ),
    (b'{"inputs": [], "inputs": []}', "'inputs' is given twice"),
    (b'{"inputs": [], "id": 5}', "Expected `str | null`, got `int` - at `$.id`"),
    (b'{"inputs": [], "parameters": {"a": 1, "a": 2}}', "'a' is given twice"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    (b'{"inputs": "\xff"}', "not valid UTF-8"),
]  # fmt: skip


def test_a_body_that_is_no_request_is_refused(grapes: ModelVersion, both: Both) -> None:
    load(both, GRAPES, SOME)
    for body, words in BODIES:
        refused(both, GRAPES, body, words)


MORE: list[tuple[Any, str]] = [
    ({"outputs": [{"name": "score"}]}, "score is not an output of this model, accepted: prediction"),
    ({"outputs": [{"name": "prediction"}] * 2}, "the output prediction is requested twice"),
    ({"outputs": [{"name": "prediction", "parameters": {"classification": 3}}]}, "request probabilities"),
    ({"outputs": [{"name": "prediction", "parameters": {"shared_memory_region": "a"}}]}, "not supported"),
    ({"outputs": [{"name": "prediction", "parameters": {"binary_data": 1}}]}, "must be true or false"),
    ({"outputs": [{}]}, "missing required field `name`"),
    ({"parameters": {"binary_data_output": "yes"}}, "binary_data_output must be true or false"),
    ({"parameters": {"_key": ["a"]}}, "send _key as a tensor"),
]  # fmt: skip


def test_an_answer_that_cannot_be_given_is_refused_and_not_logged(grapes: ModelVersion, both: Both) -> None:
    load(both, GRAPES, SOME)
    for more, words in MORE:
        refused(both, GRAPES, request(SOME, **more), words)


SIZES: list[tuple[list[Any], bytes, str]] = [
    ([24, 24], packed("FP64", [1] * 5), "binary_data_size is 24; the body holds 16 more bytes"),
    ([24, 24], packed("FP64", [1] * 7), "8 bytes of the body belong to no tensor"),
    ([24, 16], packed("FP64", [1] * 5), "FP64 of the shape [3] has 24 bytes of binary data, not 16"),
    ([24, -24], packed("FP64", [1] * 3), "must be a whole number of bytes, not negative"),
    ([24, "24"], packed("FP64", [1] * 6), "must be a whole number of bytes, not negative"),
    ([24, True], packed("FP64", [1] * 6), "must be a whole number of bytes, not negative"),
    ([24, 2**70], packed("FP64", [1] * 6), "the body holds 24 more bytes"),
    ([24, 24.0], packed("FP64", [1] * 6), "must be a whole number of bytes, not negative"),
]


def test_sizes_of_binary_data_that_lie_are_refused(grapes: ModelVersion, both: Both) -> None:
    load(both, GRAPES, SOME)
    for sizes, tail, words in SIZES:
        inputs = [
            {"name": name, "shape": [3], "datatype": "FP64", "parameters": {"binary_data_size": size}}
            for name, size in zip(SOME[0], sizes, strict=True)
        ]
        text = json.dumps({"inputs": inputs}).encode()
        refused(both, GRAPES, text + tail, words, str(len(text)))


TEXTS: list[tuple[bytes, str]] = [
    (struct.pack("<I", 2**32 - 1) + b"yes", "each behind its length as 4 bytes"),
    (b"\x03\x00\x00", "each behind its length as 4 bytes"),
    (packed("BYTES", ["yes", "yes"]), "must hold 1 text"),
    (b"", "must hold 1 text"),
    (packed("BYTES", ["yes"]) + b"\x00", "and nothing else"),
    (packed("BYTES", [b"\xff"]), "row 0, column partner: BYTES must be UTF-8 text"),
    (packed("BYTES", [b"a\x00b"]), "row 0, column partner: partner must not hold NUL"),
    (packed("BYTES", [b""]), "row 0, column partner: partner must be one of its levels"),
]


def test_lengths_of_texts_that_lie_are_refused(
    churn: ModelVersion, both: Both, customer: dict[str, Any]
) -> None:
    inputs = [each for each in tensors([customer]) if each["name"] != "partner"]
    own = {"name": "partner", "shape": [1], "datatype": "BYTES"}
    load(both, CHURN, [customer])
    for data, words in TEXTS:
        parameters = {"parameters": {"binary_data_size": len(data)}}
        text = json.dumps({"inputs": [*inputs, own | parameters]}).encode()
        refused(both, CHURN, text + data, words, str(len(text)))


def test_a_length_of_the_json_that_lies_is_refused(grapes: ModelVersion, both: Both) -> None:
    load(both, GRAPES, SOME)
    body = binary(tensors(SOME))[0]
    for length in ("x", "-1", "1.5", "1e3", "9" * 30, "0x10", "100000", "1"):
        refused(both, GRAPES, body, HEADER if length != "1" else "not valid JSON", length)


def test_more_rows_and_bytes_than_accepted_are_refused(grapes: ModelVersion, both: Both, post: Post) -> None:
    load(both, GRAPES, SOME)
    most = settings.PREDICT_MAX_ROWS
    rows = [{"name": "x", "shape": [most + 1, 2], "datatype": "FP32", "data": []}]
    refused(both, GRAPES, {"inputs": rows}, f"at most {most:,} instances")
    response = post(GRAPES, b" " * (settings.PREDICT_MAX_BYTES + 1))
    assert response.status_code == 413
    assert "accepted: at most" in response.json()["error"]


def test_many_faults_are_named_in_a_short_text(grapes: ModelVersion, api: APIClient) -> None:
    data = [1e300] * 100
    inputs = [{"name": name, "shape": [100], "datatype": "FP64", "data": data} for name in SOME[0]]
    response = api.generic("POST", GRAPES, json.dumps({"inputs": inputs}))
    error = response.json()["error"]
    assert error.startswith("at least 51 of 100 instances are invalid: row 0, column acidity")
    assert error.endswith("more")
    assert len(error) < 2_000


def test_missing_columns_are_named_once_and_not_for_every_row(
    churn: ModelVersion, api: APIClient, customer: dict[str, Any]
) -> None:
    rows = [{"gender": "male", "salary": 5}] * 1_000
    error = api.generic("POST", CHURN, json.dumps(request(rows))).json()["error"]
    assert "column salary: salary is not a column of this model" in error
    assert error.count("tenure is missing; send it as INT64") == 1
