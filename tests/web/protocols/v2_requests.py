"""Requests of the Open Inference Protocol V2, written by hand: no code of the service is used."""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from predictions.models import Prediction

CHURN, GRAPES = "/v2/models/churn/infer", "/v2/models/grapes/infer"
HEADER = "Inference-Header-Content-Length"
Row = dict[str, Any]
Sent = tuple[int, dict[str, str], bytes]
Both = Callable[..., tuple[Sent, Sent | None]]
SOME: list[Row] = [
    {"acidity": 7.0, "sugar": 1.0},
    {"acidity": 2.0, "sugar": 8.0},
    {"acidity": 2.5, "sugar": 3.0},
]
DATATYPES = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES", type(None): "FP64"}
FORMATS = {"BOOL": "?", "INT64": "q", "INT32": "i", "FP64": "d", "FP32": "f"}


def tensors(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns one tensor per column, with JSON data."""
    return [
        {"name": name, "shape": [len(rows)], "datatype": DATATYPES[type(rows[0][name])], "data": column}
        for name in rows[0]
        for column in [[row[name] for row in rows]]
    ]


def request(rows: Sequence[Row], **more: Any) -> dict[str, Any]:
    return {"inputs": tensors(rows)} | more


def packed(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype == "BYTES":
        texts = [value if isinstance(value, bytes) else value.encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return struct.pack(f"<{len(values)}{FORMATS[datatype]}", *values)


def binary(inputs: Sequence[dict[str, Any]], **more: Any) -> tuple[bytes, str]:
    """Returns (body, length of its JSON) of a request with all data in binary form."""
    tails, written = [], []
    for tensor in inputs:
        data = packed(tensor["datatype"], tensor["data"])
        plain = {name: value for name, value in tensor.items() if name != "data"}
        written.append(plain | {"parameters": {"binary_data_size": len(data)}})
        tails.append(data)
    text = json.dumps({"inputs": written} | more).encode()
    return text + b"".join(tails), str(len(text))


def outputs(body: bytes, json_length: str | None = None) -> dict[str, Any]:
    """Returns name -> flat values of a response, in JSON or binary."""
    text = body if json_length is None else body[: int(json_length)]
    tail = b"" if json_length is None else body[int(json_length) :]
    read: dict[str, Any] = {}
    for output in json.loads(text)["outputs"]:
        if "data" in output:
            read[output["name"]] = output["data"]
            continue
        size = output["parameters"]["binary_data_size"]
        data, tail = tail[:size], tail[size:]
        assert len(data) == size
        if output["datatype"] == "BYTES":
            values = []
            while data:
                (length,) = struct.unpack("<I", data[:4])
                values.append(data[4 : 4 + length].decode())
                data = data[4 + length :]
        else:
            code = FORMATS[output["datatype"]]
            values = list(struct.unpack(f"<{size // struct.calcsize(code)}{code}", data))
        read[output["name"]] = values
    assert tail == b"", "bytes without an output"
    return read


def answered(sent: Sent | None, outcome: int = 200) -> dict[str, Any]:
    """Returns the JSON of an answer."""
    assert sent is not None, "the fast path declined"
    status, headers, body = sent
    assert status == outcome, body
    length = {name.title(): value for name, value in headers.items()}.get(HEADER)
    plain: dict[str, Any] = json.loads(body if length is None else body[: int(length)])
    return plain


def error_of(sent: Sent, status: int) -> str:
    assert sent[1]["Content-Type"] == "application/json"
    plain = answered(sent, status)
    assert set(plain) == {"error"}
    assert isinstance(plain["error"], str)
    return str(plain["error"])


def logged(answer: dict[str, Any]) -> list[Prediction]:
    ids = [uuid.UUID(each) for each in answer["parameters"]["prediction_ids"]]
    rows = {row.pk: row for row in Prediction.objects.filter(pk__in=ids)}
    assert len(rows) == len(ids)
    return [rows[each] for each in ids]
