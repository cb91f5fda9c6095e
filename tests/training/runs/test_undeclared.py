"""A model whose file was removed, was written after the process started, or cannot be read: 409 with a
message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from tests.conftest import Post, assert_error
from tests.training.management.test_load_dataset import DECLARATION
from training import catalogue
from training.models import ModelVersion, RegisteredModel, TrainingRun
from training.runs import requests as run_requests

pytestmark = pytest.mark.django_db
RUNS = "/api/v1/models/churn/training-runs/"


@pytest.fixture
def gone(churn: ModelVersion, shelf: Path) -> Iterator[Path]:
    """A catalogue from which churn's file was removed."""
    yield shelf


BODIES: list[tuple[Any, str]] = [
    ({"instances": [{"tenure": 1}]}, "application/json"),
    ({"from": "outcomes"}, "application/json"),
    ({"search": {"n_iter": 3}}, "application/json"),
    ("tenure,churn\n1,yes\n", "text/csv"),
]


@pytest.mark.parametrize(("body", "kind"), BODIES, ids=["rows", "outcomes", "search", "CSV"])
def test_a_model_without_its_file_is_not_trained(gone: Path, post: Post, body: Any, kind: str) -> None:
    error = assert_error(post(RUNS, body, kind), 409, "not_declared")
    assert error["message"] == (
        "cannot train churn: its declaration was removed; restore training/catalogue/churn.py"
    )
    assert not TrainingRun.objects.filter(status="queued").exists()


def test_a_file_written_after_the_start_needs_a_restart(shelf: Path, db: None, post: Post) -> None:
    assert catalogue.names() == ()
    RegisteredModel.objects.create(name="fruit", title="Fruit")
    (shelf / "fruit.py").write_text(DECLARATION, encoding="utf-8")
    rows = {"instances": [{"weight": 1, "colour": "red", "price": 2}]}
    error = assert_error(post("/api/v1/models/fruit/training-runs/", rows), 409, "not_declared")
    assert "restart, so that training/catalogue/fruit.py is read" in error["message"]


def test_a_file_that_cannot_be_imported_is_reported_with_its_error(shelf: Path, db: None, post: Post) -> None:
    RegisteredModel.objects.create(name="fruit", title="Fruit")
    (shelf / "fruit.py").write_text("import nowhere_at_all", encoding="utf-8")
    catalogue.names.cache_clear()
    error = assert_error(
        post("/api/v1/models/fruit/training-runs/", {"from": "outcomes"}), 409, "not_declared"
    )
    assert "cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all'" in error["message"]


def test_a_run_queued_before_the_removal_fails_with_a_message(churn: ModelVersion, shelf: Path) -> None:
    run = TrainingRun.objects.create(registered_model=churn.registered_model, upload=churn.dataset)
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert (run.status, "its declaration was removed" in run.error) == ("failed", True)


def test_commands_and_the_admin_report_a_missing_declaration(
    gone: Path, churn: ModelVersion, admin_client: Client
) -> None:
    with pytest.raises(CommandError, match="its declaration was removed"):
        call_command("train", "churn")
    with pytest.raises(CommandError, match="its declaration was removed"):
        call_command("reproduce", "churn", "1")
    address = f"/admin/training/registeredmodel/{churn.registered_model_id}/retrain/"
    answered = admin_client.post(address, {}, follow=True)
    assert answered.status_code == 200
    assert "its declaration was removed" in answered.content.decode()
    assert not TrainingRun.objects.filter(status="queued").exists()
    assert (
        admin_client.get(f"/admin/training/registeredmodel/{churn.registered_model_id}/change/").status_code
        == 200
    )


@pytest.mark.parametrize(
    "path",
    ["", "versions/", "versions/1/", "versions/1/card/", "training-runs/", "quality/", "active/", "drift/"],
)
def test_reading_works_without_the_file(gone: Path, api: Any, path: str) -> None:
    assert api.get(f"/api/v1/models/churn/{path}").status_code in (200, 404)


@pytest.mark.django_db(transaction=True)
def test_predictions_and_evaluations_work_without_the_file(
    gone: Path, post: Post, customer: dict[str, Any]
) -> None:
    assert post("/api/v1/models/churn/predictions/", customer).status_code == 200
    rows = {"instances": [customer | {"churn": True}]}
    assert post("/api/v1/models/churn/evaluations/", rows).status_code == 200
