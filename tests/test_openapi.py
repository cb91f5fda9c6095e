"""The OpenAPI document is valid, complete and equal to the committed one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import call_command

from training import catalogue
from web.openapi_summaries import GROUPS, OPERATIONS

COMMITTED = Path(__file__).resolve().parent.parent / "docs" / "openapi.yaml"


@pytest.fixture(scope="module")
def described() -> str:
    out = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)
    return out.getvalue()


@pytest.fixture(scope="module")
def parsed(described: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.load(described, yaml.CSafeLoader)
    return document


def test_the_committed_document_equals_the_generated_one(described: str) -> None:
    assert described == COMMITTED.read_text(encoding="utf-8"), "run `make openapi` and look at what changed"


def test_every_model_has_its_own_documented_route(parsed: dict[str, Any]) -> None:
    paths = parsed["paths"]
    for name in catalogue.names():
        body = paths[f"/api/v1/models/{name}/predictions/"]["post"]["requestBody"]["content"]
        schema = catalogue.get(name).schema
        assert body["application/json"]["example"] == schema.example
    assert {"/predict", "/predecir", "/api/v1/models/{model}/training-runs/"} <= set(paths)


def test_every_operation_requires_a_key_and_documents_errors(parsed: dict[str, Any]) -> None:
    for path, operations in parsed["paths"].items():
        for method, operation in operations.items():
            assert operation["security"], (path, method)
            assert operation["responses"]["default"]["content"]["application/json"], (path, method)


def test_every_operation_has_a_summary_in_a_group(parsed: dict[str, Any]) -> None:
    described = {
        operation["operationId"]: (operation["tags"], operation["summary"])
        for operations in parsed["paths"].values()
        for operation in operations.values()
    }
    of_models = {f"predict_{name}": name for name in catalogue.names()}
    for name, (tags, summary) in described.items():
        expected = ("Predict", f"Predict with {of_models[name]}: ") if name in of_models else OPERATIONS[name]
        assert tags == [expected[0]], name
        assert summary.startswith(expected[1]), name
        assert len(summary) > 8, name
    assert set(described) == set(OPERATIONS) | set(of_models), "a summary of no operation, or the reverse"
    assert len(set(described)) == len({summary for _, summary in described.values()}), "two read alike"
    assert [tag["name"] for tag in parsed["tags"]] == list(GROUPS), "in the order of use"


def test_the_key_is_the_only_security_scheme_and_is_described(parsed: dict[str, Any]) -> None:
    [(name, scheme)] = parsed["components"]["securitySchemes"].items()
    assert "var/client-key" in scheme["description"]
    assert {
        str(operation["security"])
        for operations in parsed["paths"].values()
        for operation in operations.values()
    } == {str([{name: []}])}
