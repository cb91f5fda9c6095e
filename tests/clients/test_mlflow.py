"""MLflow's clients, unchanged, get the native route's answers, and their rows are logged as sent."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from core.version import VERSION
from predictions.models import Prediction
from tests.clients.conftest import Foreign
from tests.server import ROOT, Server
from tests.trained import train_sample
from web.error_shapes import MLFLOW_CODES, shaped

PAGE = ROOT / "docs" / "protocols.md"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def rows(customer: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        customer,
        customer | {"tenure": 60, "contract": "two_year", "totalcharges": None},
        customer | {"monthlycharges": 99.5, "internetservice": "fiber_optic"},
    ]


@pytest.fixture
def native(running: Server, churn: Any, key: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The native route's answer to the same rows."""
    status, _, answer = running.ask("POST", "/api/v1/models/churn/predictions/", rows, key=key)
    assert status == 200
    return dict(answer)


def logged(ids: list[str]) -> list[dict[str, Any]]:
    rows = {str(row.pk): row.inputs for row in Prediction.objects.filter(pk__in=ids)}
    return [rows[each] for each in ids]


def test_mlflow_deployments_asks_with_a_bearer_key(
    foreign: Foreign, native: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    split = {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    bodies = [
        {"dataframe_records": rows},
        {"dataframe_split": split},
        {"instances": rows},
        {"inputs": columns},
    ]
    given = foreign(
        "mlflow", "ask_mlflow_deployments.py", bodies=bodies * 2,
        refused=[("churn", {"dataframe_records": [rows[0] | {"tenure": "x"}]}), ("none", bodies[0])],
    )  # fmt: skip
    expected = [each["prediction"] for each in native["predictions"]]
    inputs = logged([each["id"] for each in native["predictions"]])
    for answer in given["answers"]:
        assert answer["predictions"] == expected
        assert answer["version"] == native["version"]
        assert logged(answer["ids"]) == inputs
    assert Prediction.objects.count() == len(rows) * (1 + 2 * len(bodies))
    invalid, unknown = given["errors"]
    assert "400" in invalid
    assert "INVALID_PARAMETER_VALUE" in invalid
    assert "row 0, column tenure: tenure must be a whole number" in invalid
    assert "404" in unknown
    assert "RESOURCE_DOES_NOT_EXIST" in unknown
    statuses = {400: "unknown_form"} | {status: "" for status in MLFLOW_CODES if isinstance(status, int)}
    for status, code in [*statuses.items(), (400, "invalid_input"), (404, "not_found")]:
        shape = shaped("/models/churn/invocations", {"code": code, "message": ""}, status)
        assert given["statuses"][shape["error_code"]] == (404 if status == 410 else status), (
            "as MLflow's server"
        )
    assert given["one"] in given["endpoints"]
    assert given["one"]["endpoint_url"].endswith("/endpoints/churn/invocations")


def test_the_scoring_client_asks_with_a_key_in_netrc(
    foreign: Foreign, native: dict[str, Any], rows: list[dict[str, Any]], key: str
) -> None:
    netrc = f"machine 127.0.0.1\nlogin anyone\npassword {key}\n"
    given = foreign("mlflow", "ask_mlflow_scoring.py", home={".netrc": netrc}, rows=rows, wait=30)
    expected = [each["prediction"] for each in native["predictions"]]
    inputs = logged([each["id"] for each in native["predictions"]])
    for name, answer in given["answers"].items():
        assert answer["frame"] == answer["array"] == expected, name
        assert logged(answer["all"]["ids"]) == inputs, name
    keyed = Prediction.objects.filter(pk__in=given["answers"]["with the key"]["all"]["ids"]).order_by("pk")
    assert [row.key for row in keyed] == ["c-0", "c-1", "c-2"]
    assert Prediction.objects.count() == len(rows) * (1 + len(given["answers"]))
    missing, wrong, matrix = given["errors"]
    assert "row 0, column tenure: tenure is missing" in missing
    assert "row 0, column tenure: tenure must be a whole number" in wrong
    assert "2 values; without names, a row must hold the 19 features" in matrix
    assert all("error code 400" in error for error in given["errors"])
    assert given["version"] == VERSION


def test_the_examples_of_the_page_work(
    foreign: Foreign, running: Server, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_sample("cars", rows=600)
    text = PAGE.read_text(encoding="utf-8").partition("## MLflow scoring")[2].partition("\n## ")[0]
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{running.port}").replace('"8000/', f'"{running.port}/')
    [request] = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    monkeypatch.setenv("VIGIA_KEY", key)
    answer = json.loads(subprocess.check_output(["sh", "-c", request], timeout=60))
    assert len(answer["predictions"]) == 1
    netrc = f"machine 127.0.0.1\nlogin anyone\npassword {key}\n"
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert foreign("mlflow", "run_examples.py", home={".netrc": netrc}, blocks=blocks) == 2
    years = [row.inputs["year"] for row in Prediction.objects.order_by("pk")]
    assert years == [2014, 2014, 2014, 2017]
    assert Prediction.objects.order_by("pk")[0].key == "my-car"


def test_the_scoring_client_without_a_key_is_refused(foreign: Foreign, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(AssertionError, match="Last ping error: Exception: ping failed \\(error code 401\\)"):
        foreign("mlflow", "ask_mlflow_scoring.py", rows=rows, wait=1)
    assert not Prediction.objects.exists()
