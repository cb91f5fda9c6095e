"""The memory of lists: rows that refer to one version share one version object."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models.signals import post_init
from django.test import Client
from rest_framework.renderers import JSONRenderer
from rest_framework.test import APIClient

from predictions.log import queries
from predictions.models import Prediction
from tests.conftest import Post, Staff
from training.models import Activation, ModelVersion
from training.registry import activation

CHURN = "/api/v1/models/churn/predictions/"
ROWS = 40
pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def counted_versions() -> Iterator[Counter[str]]:
    """Counts the version objects that are built within, and those that load their evaluation."""
    counts: Counter[str] = Counter()

    def count(sender: Any, instance: ModelVersion, **_: Any) -> None:
        counts["built"] += 1
        counts["with_evaluation"] += "evaluation" not in instance.get_deferred_fields()

    post_init.connect(count, sender=ModelVersion)
    try:
        yield counts
    finally:
        post_init.disconnect(count, sender=ModelVersion)


@pytest.fixture
def logged(churn: ModelVersion, post: Post, customer: dict[str, Any]) -> ModelVersion:
    rows = [{**customer, "tenure": n, "_key": f"k{n}"} for n in range(ROWS)]
    assert post(CHURN, rows).status_code == 200
    return churn


def page_of(client: Client | APIClient, path: str) -> bytes:
    answered: Any = client.get(path)
    assert answered.status_code == 200, answered.content[:300]
    return b"".join(answered.streaming_content) if answered.streaming else answered.content


@pytest.mark.parametrize("query", ["?limit=1000", "?limit=1000&format=csv", f"?limit={ROWS // 2}"])
def test_a_page_of_the_log_builds_one_version(logged: ModelVersion, api: APIClient, query: str) -> None:
    page_of(api, CHURN + query)  # what is learned once
    with counted_versions() as counts:
        page_of(api, CHURN + query)
    assert counts == {"built": 1, "with_evaluation": 0}


@pytest.mark.parametrize("query", ["?limit=30", f"?limit={ROWS}&format=csv", "?limit=25&version=1"])
def test_a_page_read_in_pieces_has_the_same_bytes(
    logged: ModelVersion, api: APIClient, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_one = page_of(api, CHURN + query)
    monkeypatch.setattr(queries, "PIECE", 7)
    assert page_of(api, CHURN + query) == in_one


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("listed", ["predictions", "outcomes"])
def test_a_list_is_the_renderers_json_with_the_next_page_in_body_and_header(
    logged: ModelVersion, api: APIClient, post: Post, listed: str, last: bool
) -> None:
    sent = [{"key": f"k{row}", "actual": row % 2 == 0} for row in range(5)]
    assert post("/api/v1/models/churn/outcomes/", sent).status_code == 200
    address = f"/api/v1/models/churn/{listed}/?limit={500 if last else 3}"
    plain: Any = api.get(address)
    body = plain.json()
    assert list(body) == ["model", listed, "next"]
    assert plain.content == JSONRenderer().render(body)
    assert plain["Content-Type"] == "application/json"
    assert plain.get("Link") == (None if last else f'<{body["next"]}>; rel="next"')
    head: Any = api.head(address)
    assert (head.status_code, head.content) == (200, b"")
    assert {**head.headers, "X-Request-ID": ""} == {**plain.headers, "X-Request-ID": ""}
    indented: Any = api.get(address, headers={"Accept": "application/json; indent=2"})
    assert indented.json() == body
    assert b'\n  "next"' in indented.content
    page: Any = api.get(address, headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert body[listed][0]["id" if listed == "predictions" else "prediction"] in page.content.decode()


def test_the_csv_of_the_log_is_streamed_and_equals_the_json(logged: ModelVersion, api: APIClient) -> None:
    answered: Any = api.get(CHURN, {"format": "csv", "limit": 30})
    assert answered.streaming
    assert answered["Content-Type"] == "text/csv; charset=utf-8"
    assert 'rel="next"' in answered["Link"]
    rows = list(csv.DictReader(io.StringIO(b"".join(answered.streaming_content).decode())))
    listed = api.get(CHURN, {"limit": 30}).json()["predictions"]
    assert [row["id"] for row in rows] == [row["id"] for row in listed]
    for row, same in zip(rows, listed, strict=True):
        assert json.loads(row["prediction"].lower()) == same["prediction"]
        assert float(row["probability"]) == same["probability"]
        assert (row["key"], row["input.tenure"]) == (same["key"], str(same["inputs"]["tenure"]))


Page = Callable[[ModelVersion], str]
PAGES: dict[str, Page] = {
    "log": lambda version: "/admin/predictions/prediction/",
    "audit": lambda version: "/admin/training/activation/",
    "model": lambda version: f"/admin/training/registeredmodel/{version.registered_model_id}/change/",
    "runs": lambda version: "/admin/training/trainingrun/",
    "datasets": lambda version: "/admin/training/dataset/",
}


@pytest.mark.parametrize("name", PAGES)
def test_an_admin_page_does_not_build_a_version_per_row(
    logged: ModelVersion, staff: Staff, name: str
) -> None:
    model = logged.registered_model
    for turn in range(6):
        Activation.objects.create(
            registered_model=model, version=logged, previous=logged, kind="activate", reason=f"turn {turn}",
            gate={}, at=logged.created_at,
        )  # fmt: skip
    assert Prediction.objects.count() == ROWS
    browser = Client()
    browser.force_login(User.objects.create_superuser("boss"))
    with counted_versions() as counts:
        page_of(browser, PAGES[name](logged))
    assert counts["built"] <= 8, counts
    assert activation.active_at(model, None) is not None
