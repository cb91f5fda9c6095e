"""The API's description: valid, complete, and the same as the committed one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import call_command

from training import catalogue

COMMITTED = Path(__file__).resolve().parent.parent / "docs" / "openapi.yaml"


@pytest.fixture(scope="module")
def described() -> str:
    out = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)
    return out.getvalue()


@pytest.fixture(scope="module")
def parsed(described: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(described, yaml.CSafeLoader)
    return found


def test_the_committed_description_is_the_codes(described: str) -> None:
    assert described == COMMITTED.read_text(encoding="utf-8"), "run `make openapi` and look at what changed"


def test_every_model_has_its_own_documented_route(parsed: dict[str, Any]) -> None:
    paths = parsed["paths"]
    for name in catalogue.names():
        body = paths[f"/api/v1/models/{name}/predictions/"]["post"]["requestBody"]["content"]
        schema = catalogue.get(name).schema
        assert body["application/json"]["example"] == schema.example
    assert {"/predict", "/predecir", "/api/v1/models/{model}/training-runs/"} <= set(paths)


def test_every_operation_asks_for_a_key_and_knows_the_error_shape(parsed: dict[str, Any]) -> None:
    for path, operations in parsed["paths"].items():
        for method, operation in operations.items():
            assert operation["security"], (path, method)
            assert operation["responses"]["default"]["content"]["application/json"], (path, method)
