"""The readiness probe: it reports whether the service can predict, and all problems, in time."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.core.files.storage import default_storage
from django.db import connection
from django.test import Client
from rest_framework.test import APIClient

from tests.trained import train_sample
from tests.tunnel import Tunnel
from training import artifacts
from training.jobs import heartbeats
from training.models import ModelVersion
from training.serving import engine_cache
from web import health

pytestmark = pytest.mark.django_db(transaction=True)
LIMIT = health.DEADLINE_SECONDS + 1


def ready() -> tuple[int, dict[str, Any]]:
    """Returns (status, body) of the probe after a new run of all checks."""
    health.forget()
    started = time.monotonic()
    response = Client().get("/healthz/ready")
    assert time.monotonic() - started < LIMIT
    return response.status_code, response.json()


def checks(body: dict[str, Any]) -> set[str]:
    return {entry["check"] for entry in body["degraded"]}


@pytest.fixture
def processes(db: None) -> None:
    """Heartbeats of all background processes."""
    for role in heartbeats.ROLES:
        heartbeats.write(f"{role}@here", role)


def set_broker(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(settings, "CELERY_BROKER_URL", f"redis://127.0.0.1:{port}/0")


def age(name: str, seconds: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE training_heartbeat SET at = now() - make_interval(secs => %s) WHERE name = %s",
            [seconds, name],
        )


def test_a_complete_service_is_ready_and_not_degraded(churn: ModelVersion, processes: None) -> None:
    status, body = ready()
    assert (status, body["status"], body["active_models"]) == (200, "ready", 1), body
    assert (body["database"], body["degraded"]) == ("ok", [])


def test_a_service_without_an_active_version_is_not_ready(processes: None) -> None:
    status, body = ready()
    assert (status, body["status"], body["database"], body["active_models"]) == (503, "unavailable", "ok", 0)


def test_missing_processes_broker_and_store_degrade_a_service_that_stays_ready(
    churn: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine_cache.ready(churn.pk)
    set_broker(monkeypatch, 1)
    monkeypatch.setattr(default_storage, "location", "/proc/no-store-can-be-here")
    status, body = ready()
    assert status == 200
    assert checks(body) == {"store", "broker", "models", *heartbeats.ROLES}
    assert "REDIS_URL" in str(body["degraded"])
    assert "/proc" not in str(body) and "127.0.0.1" not in str(body), "the probe is public"


def test_a_silent_process_degrades_the_service_until_it_is_forgotten(
    churn: ModelVersion, processes: None
) -> None:
    age("worker@here", heartbeats.EXPECTED_SECONDS + 5)
    age("beat@here", heartbeats.FORGOTTEN_SECONDS + 5)
    heartbeats.write("beat@there", "beat")
    assert checks(ready()[1]) == {"worker"}
    heartbeats.write("worker@there", "worker")
    [entry] = ready()[1]["degraded"]
    assert entry["message"].startswith("1 of 2 worker processes")
    heartbeats.leave("worker@here")
    assert ready()[1]["degraded"] == []


def test_unusable_artifacts_degrade_the_service_and_it_is_not_ready_without_any_usable(
    churn: ModelVersion, processes: None, settings: Any
) -> None:
    train_sample("houses", rows=400)
    stored = Path(default_storage.path(artifacts._name(artifacts._serving(churn)[1])))
    aside = stored.rename(stored.with_suffix(".aside"))
    try:
        status, body = ready()
    finally:
        aside.rename(stored)
    assert (status, body["active_models"], checks(body)) == (200, 1, {"models"})
    settings.ARTIFACT_KEY = "another key than the one that signed them, and as long"
    engine_cache.forget()
    status, body = ready()
    assert (status, body["active_models"], checks(body)) == (503, 0, {"models"})


def test_a_broker_that_does_not_answer_is_reported_within_the_limit(
    churn: ModelVersion, processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tunnel = Tunnel(int(urlsplit(settings.CELERY_BROKER_URL).port or 6379))
    tunnel.swallow()
    set_broker(monkeypatch, tunnel.port)
    try:
        status, body = ready()
        assert (status, checks(body)) == (200, {"broker"})
    finally:
        tunnel.close()


def test_a_database_that_does_not_answer_is_reported_within_the_limit_each_time(
    churn: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    tunnel = Tunnel(int(connection.settings_dict["PORT"]))
    tunnel.swallow()
    monkeypatch.setitem(connection.settings_dict, "PORT", tunnel.port)
    try:
        status, body = ready()
        assert (status, body["database"], body["status"]) == (503, "away", "unavailable")
        started = time.monotonic()
        assert Client().get("/healthz/ready").status_code == 503
        assert time.monotonic() - started < 0.5, "a probe that hangs is waited for once"
    finally:
        tunnel.close()


def test_metrics_report_degraded_checks(churn: ModelVersion, settings: Any) -> None:
    settings.METRICS_TOKEN = "a-token-that-is-long-enough-to-be-one"
    health.forget()
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {settings.METRICS_TOKEN}")
    text = client.get("/metrics").content.decode()
    assert "\nvigia_ready 1.0\n" in text
    assert '\nvigia_degraded{check="worker"} 1.0\n' in text
    assert '\nvigia_degraded{check="database"} 0.0\n' in text


def test_a_problem_and_its_end_are_logged_once(
    churn: ModelVersion, processes: None, caplog: pytest.LogCaptureFixture
) -> None:
    heartbeats.leave("beat@here")
    health.forget()
    with caplog.at_level(logging.WARNING, "web.health"):
        health.watch()
        health.watch()
        heartbeats.write("beat@here", "beat")
        time.sleep(1.05)  # an answer is fresh for a second
        health.watch()
    messages = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in messages] == ["degraded", "recovered"], messages
