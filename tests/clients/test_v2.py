"""Clients of the Open Inference Protocol V2, unchanged, get the native route's answers, and their rows are
logged as sent."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from predictions.models import Prediction
from tests.clients.conftest import Foreign
from tests.grapes import grapes
from tests.server import Server
from tests.trained import train_sample
from training.models import ModelVersion

__all__ = ["grapes"]
pytestmark = pytest.mark.django_db(transaction=True)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocols.md"
MATRIX = [[7.0, 1.0], [2.0, 8.0], [2.5, 3.0]]


@pytest.fixture
def rows(customer: dict[str, Any]) -> list[dict[str, Any]]:
    customer |= {"seniorcitizen": False}
    return [customer, customer | {"tenure": 60, "contract": "two_year", "totalcharges": None}]


@pytest.fixture
def native(
    running: Server, churn: ModelVersion, key: str, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The native route's answers to the same rows."""
    status, _, answer = running.ask("POST", "/api/v1/models/churn/predictions/", rows, key=key)
    assert status == 200
    return list(answer["predictions"])


def check(answer: dict[str, Any], native: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Asserts that an answer has the native values, and that its rows are logged as they were sent."""
    expected = {
        "prediction": [each["prediction"] for each in native],
        "probability": [each["probability"] for each in native],
        "probabilities": [value for each in native for value in each["probabilities"].values()],
    }
    assert answer["outputs"]
    for name, values in answer["outputs"].items():
        assert values == expected[name], name
    assert answer["version"] == "1"
    assert logged(answer) == rows


def logged(answer: dict[str, Any]) -> list[dict[str, Any]]:
    by_id = {row.pk: row.inputs for row in Prediction.objects.filter(pk__in=answer["ids"])}
    return [by_id[uuid.UUID(each)] for each in answer["ids"]]


def test_tritonclient_asks_with_binary_and_json_tensors(
    foreign: Foreign,
    native: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    grapes: ModelVersion,
) -> None:
    given = foreign("v2", "ask_tritonclient.py", rows=rows, matrix=MATRIX)
    assert given["live"] and given["ready"] and given["model_ready"] and given["version_ready"]
    assert given["unknown_ready"] is False
    assert given["server"]["extensions"] == ["binary_tensor_data"]
    assert given["metadata"]["name"] == "churn"
    for answer in given["answers"]:
        check(answer, native, rows)
    assert given["answers"][0]["id"] == "mine"
    assert given["grapes"]["outputs"]["prediction"] == ["poor", "good", "fair"]
    assert [list(row.values()) for row in logged(given["grapes"])] == MATRIX
    (invalid, message), unknown, without_key = given["errors"]
    assert invalid == "400"
    assert "row 0, column tenure: tenure must be at least 0 and at most 1200, sent: -5" in message
    assert "accepted: month-to-month, one_year, two_year" in message
    assert unknown == ["404", "no registered model is called 'none'"]
    assert without_key == ["401", "send Authorization: Token <key>"]
    assert Prediction.objects.count() == len(rows) * (1 + len(given["answers"])) + len(MATRIX)


def test_kserves_client_asks_with_json_and_binary_tensors(
    foreign: Foreign, native: list[dict[str, Any]], rows: list[dict[str, Any]], running: Server, key: str
) -> None:
    status, _, metadata = running.ask("GET", "/v2/models/churn", key=key)
    assert status == 200
    given = foreign("v2", "ask_kserve.py", rows=rows, columns=metadata["inputs"])
    assert given["live"] and given["ready"] and given["model_ready"]
    assert given["unknown_ready"] is False
    for answer in given["answers"]:
        check(answer, native, rows)
        assert (answer["model"], answer["id"]) == ("churn", "mine")
    (invalid, message), (unknown, words) = given["errors"]
    assert (invalid, unknown) == (400, 404)
    assert "row 0, column tenure: tenure must be at least 0" in message
    assert "no registered model is called 'none'" in words
    assert Prediction.objects.count() == len(rows) * (1 + len(given["answers"]))


def test_the_examples_of_the_page_work(
    foreign: Foreign, running: Server, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_sample("cars", rows=600)
    text = (
        PAGE.read_text(encoding="utf-8").partition("## Open Inference Protocol V2")[2].partition("\n## ")[0]
    )
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{running.port}")
    [request] = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    monkeypatch.setenv("VIGIA_KEY", key)
    answer = json.loads(subprocess.check_output(["sh", "-c", request], timeout=60))
    assert answer["outputs"][0]["shape"] == [2]
    assert foreign("v2", "run_examples.py", blocks=re.findall(r"```python\n(.*?)```", text, re.DOTALL)) == 2
    assert [row.inputs["year"] for row in Prediction.objects.order_by("pk")] == [2014, 2017, 2014, 2014]
