"""Random requests of the protocol: never a 500, and every answer is logged exactly with what was sent."""

from __future__ import annotations

import copy
import json
import math
import os
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from predictions.models import Prediction
from tests.web.protocols.v2_requests import GRAPES, SOME, Both, Sent, logged, packed, request, tensors
from training.models import ModelVersion
from vigia_ml.schema import DatasetSchema, Instance

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
pytestmark = pytest.mark.django_db(transaction=True)
NAMES = st.sampled_from(["acidity", "sugar", "_key", "grade", "Acidity", "salary", "index", "x", ""])
DATATYPES = st.sampled_from(
    ["BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "UINT64", "FP16", "FP32", "FP64", "BYTES", "FP8", ""]
)
SIZES = st.one_of(
    st.integers(-2, 4), st.sampled_from([0, 1, 3, 2**31, 2**62, 2**64, 10**30, True, 1.0, "3", None])
)
VALUES = st.one_of(
    st.floats(), st.integers(-(2**70), 2**70), st.integers(-300, 300), st.booleans(), st.none(),
    st.text(max_size=5), st.sampled_from(["", "1", "a:b", "\ud800", "\x00", [], {}, [1], {"a": 1}]),
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 60), st.text(max_size=5), st.floats(), st.just([])
)
PARAMETERS = st.dictionaries(
    st.sampled_from(
        ["binary_data_size", "binary_data", "binary_data_output", "_key", "classification", "trace"]
    ),
    SCALARS, max_size=3,
)  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, str | None]:
    """Draws a valid request with some changes, with JSON or binary data: (body, length of its JSON)."""
    rows = draw(st.integers(1, 3))
    valid = st.sampled_from([7.0, 2.0, 2.5, -1.0, 0.0, 1e30])
    if draw(st.booleans()):
        inputs = tensors([{"acidity": draw(valid), "sugar": draw(valid)} for _ in range(rows)])
    else:
        data = [draw(valid) for _ in range(2 * rows)]
        inputs = [{"name": "x", "shape": [rows, 2], "datatype": "FP64", "data": data}]
    sent: dict[str, Any] = {"inputs": inputs, "id": draw(st.sampled_from(["1", "a:b", "é", None]))}
    for _ in range(draw(st.integers(0, 3))):
        tensor = draw(st.sampled_from(inputs))
        match draw(st.integers(0, 8)):
            case 0 if isinstance(tensor.get("data"), list) and tensor["data"]:
                tensor["data"][draw(st.integers(0, len(tensor["data"]) - 1))] = draw(VALUES)
            case 1:
                tensor["shape"] = draw(st.lists(SIZES, max_size=3))
            case 2:
                tensor["datatype"] = draw(DATATYPES)
            case 3:
                tensor["name"] = draw(NAMES)
            case 4:
                tensor["parameters"] = draw(PARAMETERS)
            case 5:
                sent["parameters"] = draw(PARAMETERS)
            case 6:
                sent["outputs"] = draw(
                    st.lists(
                        st.fixed_dictionaries({
                            "name": st.sampled_from(["prediction", "probability", "probabilities", "x"]),
                            "parameters": PARAMETERS,
                        }),
                        max_size=3,
                    )
                )  # fmt: skip
            case 7:
                inputs.append(copy.deepcopy(tensor) | {"name": draw(NAMES)})
            case _:
                tensor["data"] = draw(st.sampled_from([None, [], 1, "x", {"a": 1}, [[1.0]], [[[]]]]))
    tail = None
    if draw(st.booleans()):
        tail = b""
        for tensor in inputs:
            try:
                data = packed(tensor["datatype"], tensor["data"])
            except (struct.error, KeyError, TypeError, AttributeError, UnicodeEncodeError):
                continue
            tensor["parameters"] = {"binary_data_size": len(data) + draw(st.sampled_from([0] * 9 + [1]))}
            del tensor["data"]
            tail += data
        tail = tail[: len(tail) - draw(st.sampled_from([0] * 9 + [1, 5]))]
    text = json.dumps(sent).encode()
    if draw(st.sampled_from([False] * 9 + [True])):
        at = draw(st.integers(0, len(text) - 1))
        text = text[:at] + draw(st.binary(max_size=2)) + text[at + 1 :]
    if tail is None:
        return text, None
    return text + tail, str(len(text) + draw(st.sampled_from([0] * 19 + [1])))


def expected(body: bytes, json_length: str | None, schema: DatasetSchema) -> list[Instance]:
    """Returns the rows of an accepted request, read by the protocol's text alone and by the schema."""
    text = body if json_length is None else body[: int(json_length)]
    tail = b"" if json_length is None else body[int(json_length) :]
    sent = json.loads(text)
    columns: dict[str, list[Any]] = {}
    for tensor in sent["inputs"]:
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        values = tensor.get("data")
        if size is not None:
            data, tail = tail[:size], tail[size:]
            count = math.prod(tensor["shape"])
            values = _unpacked(tensor["datatype"], data, count)
        while any(isinstance(value, list) for value in values):
            values = [each for value in values for each in value]
        if len(tensor["shape"]) == 2 and tensor["shape"][1] == 2:  # the matrix
            columns["acidity"], columns["sugar"] = values[::2], values[1::2]
        else:
            columns[tensor["name"]] = values
    if "_key" in (sent.get("parameters") or {}):
        columns["_key"] = [sent["parameters"]["_key"]]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    read = [schema.read(row) for row in rows]
    assert all(isinstance(each, Instance) for each in read), f"accepted rows that the schema rejects: {rows}"
    return [each for each in read if isinstance(each, Instance)]


def _unpacked(datatype: str, data: bytes, count: int) -> list[Any]:
    if datatype != "BYTES":
        code = {"FP64": "d", "FP32": "f", "FP16": "e", "BOOL": "?", "INT8": "b", "UINT8": "B", "INT16": "h",
                "INT32": "i", "INT64": "q", "UINT64": "Q"}[datatype]  # fmt: skip
        return list(struct.unpack(f"<{count}{code}", data))
    texts = []
    while data:
        (length,) = struct.unpack("<I", data[:4])
        texts.append(data[4 : 4 + length].decode())
        data = data[4 + length :]
    return texts


def check(sent: Sent, rows: list[Instance]) -> Any:
    status, headers, body = sent
    length = {name.title(): value for name, value in headers.items()}.get("Inference-Header-Content-Length")
    answer = json.loads(body if length is None else body[: int(length)])
    assert status == 200
    for row, instance in zip(logged(answer), rows, strict=True):
        assert row.inputs == instance.values
        assert row.key == instance.key
    return answer["outputs"]


def test_an_answer_to_a_random_request_is_logged_with_what_was_sent(grapes: ModelVersion, both: Both) -> None:
    schema = grapes.dataset_schema
    assert both(GRAPES, request(SOME))[1] is not None
    answered = [0, 0, 0]

    @settings(
        max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
    )
    @given(bodies())
    def run(sent: tuple[bytes, str | None]) -> None:
        body, length = sent
        before = Prediction.objects.count()
        plain, quick = both(GRAPES, body, length)
        status, headers, content = plain
        assert status in (200, 400, 413), (status, content)
        if status != 200:
            assert headers["Content-Type"] == "application/json"
            [(name, words)] = json.loads(content).items()
            assert name == "error" and isinstance(words, str) and len(words) < 3_000
            assert quick is None, "the fast path accepts what Django refuses"
            assert Prediction.objects.count() == before
            answered[0] += 1
            return
        rows = expected(body, length, schema)
        outputs = check(plain, rows)
        answered[1] += 1
        if quick is not None:
            assert check(quick, rows) == outputs
            answered[2] += 1
        assert Prediction.objects.count() == before + len(rows) * (1 + (quick is not None))

    run()
    refused, accepted, quickly = answered
    assert min(refused, accepted, quickly) > EXAMPLES / 10, answered
