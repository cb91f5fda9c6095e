"""Actions on a version in a real browser: a refused and an overridden activation, rollback, replay,
shadow."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from predictions.models import Replay
from tests.browser.conftest import CHROMIUM
from tests.predictions.admin.test_log import answered
from tests.trained import SAMPLES, train_sample
from training.jobs import leases
from training.models import Activation, ModelVersion, Rollout, TrainingRun
from training.runs import requests as run_requests
from training.runs import uploads

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed (apt install chromium)"),
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def versions(db: None) -> tuple[ModelVersion, ModelVersion]:
    """Returns an active version, and a candidate that fails its gate, because its labels mark every tenth
    customer as leaving."""
    active = train_sample("churn", rows=600)
    lines = (SAMPLES / "churn.csv").read_bytes().splitlines(keepends=True)[:301]
    mislabelled = [lines[0]]
    for at, line in enumerate(lines[1:]):
        mislabelled.append(line.rpartition(b",")[0] + (b",Yes\n" if at % 10 == 0 else b",No\n"))
    rows = uploads.from_csv(
        active.registered_model, io.BytesIO(b"".join(mislabelled)), by=None, source="wrong"
    )
    run = run_requests.request(active.registered_model, rows, mode=TrainingRun.Mode.REPLACE, by=None)
    assert run_requests.execute(run.pk)
    candidate = ModelVersion.objects.get(run=run)
    assert not candidate.gate["passed"]
    return active, candidate


def test_an_activation_is_refused_then_overridden_then_rolled_back(
    page: Any, versions: tuple[ModelVersion, ModelVersion]
) -> None:
    active, candidate = versions
    page.goto(f"/admin/training/modelversion/{candidate.pk}/activate/")
    page.get_by_label("Reason").fill("let us see")
    page.get_by_role("button", name="Activate version 2").click()
    page.get_by_text("Nothing was changed: churn 2 did not pass its gate").wait_for()
    assert active.registered_model.active_version == active
    assert Activation.objects.count() == 1

    page.get_by_role("checkbox").check()
    page.get_by_label("Reason").fill("wrong on purpose")
    page.get_by_role("button", name="Activate version 2").click()
    page.get_by_text("churn 2 is active now").wait_for()
    done = Activation.objects.latest()
    assert (done.version, done.overridden, done.reason) == (
        candidate,
        True,
        "wrong on purpose",
    )
    assert not done.gate["passed"], "the audit row keeps the checks that failed"

    page.goto(f"/admin/training/registeredmodel/{active.registered_model_id}/change/")
    page.get_by_role("link", name="Roll back").click()
    page.get_by_label("Reason").fill("it was")
    page.get_by_role("button", name="Roll back to version 1").click()
    page.get_by_text("churn 1 is active now").wait_for()
    back = Activation.objects.latest()
    assert (back.version, back.previous, back.kind) == (active, candidate, "rollback")
    assert back.actor == User.objects.get(username="boss")
    page.goto("/admin/training/activation/")
    assert page.get_by_text("wrong on purpose").is_visible()


def test_a_run_is_followed_and_cancelled(page: Any, versions: tuple[ModelVersion, ModelVersion]) -> None:
    active, _ = versions
    run = run_requests.request(
        active.registered_model, active.dataset, mode=TrainingRun.Mode.REPLACE, by=None
    )
    page.goto(f"/admin/training/trainingrun/{run.pk}/change/")
    page.get_by_text("this page shows the progress").wait_for()
    TrainingRun.objects.filter(pk=run.pk).update(stage="waiting for run 1 of churn")
    page.get_by_text("waiting for run 1 of churn").wait_for()  # without reloading
    page.get_by_role("button", name="Cancel run").click()
    page.get_by_text(f"Run {run.pk} was cancelled").wait_for()
    assert TrainingRun.objects.get(pk=run.pk).status == "cancelled"


def test_a_candidate_is_replayed_on_the_log(page: Any, versions: tuple[ModelVersion, ModelVersion]) -> None:
    """The log's predictions are true; the candidate predicts false for every row."""
    active, candidate = versions
    rows = answered(active, 40, cells=leaving(active), prediction=True, probability=0.8)
    page.goto(f"/admin/training/modelversion/{candidate.pk}/change/")
    page.get_by_role("link", name="Replay…").click()
    page.get_by_role("button", name="Queue the replay").click()
    page.get_by_text("this page refreshes itself").wait_for()
    replay = Replay.objects.get()
    assert replay.since < rows[0].at < replay.until <= timezone.now()
    assert leases.execute(Replay, replay.pk)
    page.get_by_text("40 (100.0 %)").wait_for()
    page.locator("figure.vg-chart canvas").first.wait_for()
    link = page.get_by_role("link", name=str(rows[0].pk))
    link.click()
    page.get_by_role("heading", name="Prediction").first.wait_for()


def leaving(version: ModelVersion) -> list[Any]:
    """Returns the inputs of a new customer with a monthly contract."""
    values: dict[str, Any] = {"tenure": 1, "monthlycharges": 80.0, "totalcharges": 80.0}
    return [
        values.get(column.name, column.levels[0] if column.levels else False)
        for column in version.dataset_schema.columns
    ]


def test_a_shadow_is_started_and_stopped(page: Any, versions: tuple[ModelVersion, ModelVersion]) -> None:
    _, candidate = versions
    page.goto(f"/admin/training/modelversion/{candidate.pk}/change/")
    page.get_by_role("link", name="Shadow…").click()
    page.get_by_label("Reason").fill("a look beside the active one")
    page.get_by_role("button", name="shadow", exact=False).last.click()
    page.get_by_text("running").first.wait_for()
    rollout = Rollout.objects.get()
    assert (rollout.kind, rollout.stopped_at) == ("shadow", None)
    page.get_by_role("link", name="Stop…").first.click()
    page.get_by_label("Reason").fill("seen enough")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("ended").first.wait_for()
    rollout.refresh_from_db()
    assert rollout.stop_reason == "seen enough"
    assert rollout.stopped_by == User.objects.get(username="boss")
