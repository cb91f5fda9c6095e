"""`/metrics` of one process: its permissions, its figures of the database and its documentation."""

from __future__ import annotations

import datetime as dt
import http.client
import socket
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.test import APIClient

from core.metrics import counters
from core.metrics.definitions import TABLE
from core.models import Delivery, Event, Subscription, SubscriptionState
from core.uuid7 import lowest_at
from predictions.log import partitions
from predictions.models import (
    Batch,
    DriftFinding,
    DriftReview,
    LogExport,
    Outcome,
    Prediction,
    RolledHour,
)
from tests.conftest import assert_error, keyed
from tests.trained import train_sample
from tools import metrics_page
from training.access import client_keys
from training.models import GroupScope, ModelVersion, RegisteredModel, TrainingRun
from training.serving import engine_cache
from web.metrics import database_collector, views
from web.metrics.database_collector import RECENT, fall, lag

PAGE = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"
TOKEN = "0123456789abcdef" * 3
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def scraper(settings: Any) -> APIClient:
    settings.METRICS_TOKEN = TOKEN
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {TOKEN}")
    return client


def scraped(client: APIClient) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.content
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, tuple(sorted(labels.items()))))


# -- permissions -----------------------------------------------------------------------------------


def test_a_silent_client_does_not_block_the_worker_metrics(settings: Any) -> None:
    settings.METRICS_TOKEN = TOKEN
    server = views.serve_worker(0)
    assert server is not None
    try:
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=5):
            client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
            client.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
            assert client.getresponse().status == 200
            client.close()
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.django_db
def test_metrics_need_a_key_or_the_token(settings: Any) -> None:
    assert_error(APIClient().get("/metrics"), 401, "not_authenticated")
    for token, wrong in ((TOKEN, "wrong"), (TOKEN, TOKEN[:-1]), ("", ""), ("", "x")):
        settings.METRICS_TOKEN = token
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {wrong}")
        assert_error(client.get("/metrics"), 401, "bad_key")


@pytest.mark.django_db
def test_the_token_is_valid_for_metrics_only(scraper: APIClient) -> None:
    assert scraper.get("/metrics").status_code == 200
    assert_error(scraper.get("/api/v1/models/"), 401, "bad_key")
    assert_error(scraper.post("/metrics"), 401, "bad_key")


@pytest.mark.django_db
def test_the_token_is_valid_at_every_address_of_a_container(scraper: APIClient, settings: Any) -> None:
    """Prometheus asks each container of web by its address, over plain HTTP."""
    settings.ALLOWED_HOSTS = ["vigia.example.com"]
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_REDIRECT_EXEMPT = []
    counted = {"route": "/metrics", "method": "GET", "status": "200"}
    before = value(scraped(scraper), "vigia_requests_total", **counted) or 0
    answer = scraper.get("/metrics", headers={"Host": "172.20.0.7:8000"})
    assert answer.status_code == 200
    assert value(scraped(scraper), "vigia_requests_total", **counted) == before + 2
    scraper.credentials()
    assert scraper.get("/metrics", headers={"Host": "172.20.0.7:8000"}).status_code == 400


def test_a_key_needs_the_right_to_read_the_log_of_every_model(churn: ModelVersion, api: APIClient) -> None:
    assert api.get("/metrics").status_code == 200
    stranger = User.objects.create(username="stranger")
    assert_error(keyed(stranger).get("/metrics"), 403, "forbidden")
    scoped = Group.objects.create(name="scoped")
    scoped.permissions.add(Permission.objects.get(codename="read_log", content_type__app_label="training"))
    scope = GroupScope.objects.create(group=scoped)
    scope.registered_models.add(churn.registered_model)
    stranger.groups.add(scoped)
    assert_error(keyed(stranger).get("/metrics"), 403, "forbidden")
    scope.registered_models.set(RegisteredModel.objects.all())
    assert keyed(stranger).get("/metrics").status_code == 200


def test_a_superuser_reads_metrics_in_a_browser(churn: ModelVersion) -> None:
    browser = Client()
    browser.force_login(User.objects.create_superuser("root"))
    answer = browser.get("/metrics", headers={"Accept": "text/html,*/*;q=0.8"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.headers["Cache-Control"] == "no-store"


# -- formats and documentation ---------------------------------------------------------


def test_both_formats_hold_documented_families_only(churn: ModelVersion, scraper: APIClient) -> None:
    finding(review_of(churn), 0, "tenure", "drift", 0.3)
    counters.answered("/r", engine_cache.served(churn.registered_model), [b"true"], 0.002, classes=True)
    plain = scraper.get("/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain; version=")
    strict = scraper.get("/metrics", headers={"Accept": OPENMETRICS})
    assert strict.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    families = list(openmetrics.text_string_to_metric_families(strict.content.decode()))
    assert len({family.name for family in families}) == len(families)
    documented = {name.removesuffix("_total") for name in TABLE}
    assert {family.name for family in families} <= documented
    assert {family.name for family in text_string_to_metric_families(plain.content.decode())} <= documented
    for family in families:
        assert family.documentation, family.name


def test_every_metric_is_documented_and_every_documented_metric_exists() -> None:
    assert metrics_page.main() == 0
    assert metrics_page.faults(PAGE.read_text(encoding="utf-8")) == []


def test_differences_between_the_page_and_the_metrics_are_reported() -> None:
    rows = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [row for row in rows if "`vigia_web_processes`" not in row]
    rows = [row.replace("`vigia_jobs` | gauge", "`vigia_jobs` | counter") for row in rows]
    rows = [row.replace("| `task`, `result` |", "| `task` |") for row in rows]
    rows.append("| `vigia_wishes_total` | counter | | Wishes. |")
    assert sorted(metrics_page.faults("\n".join(rows))) == [
        "vigia_jobs is a gauge, documented as a counter",
        "vigia_tasks_total has the labels task, result, documented otherwise",
        "vigia_web_processes is exposed and not documented",
        "vigia_wishes_total is documented and not exposed",
    ]


# -- counters of this process -----------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_answers_and_refusals_are_counted_without_names_from_clients(scraper: APIClient) -> None:
    partitions.ensure(timezone.now(), 1)
    version = train_sample("churn", rows=600)
    client = keyed(client_keys.client_with_every_right("counter"))
    path = "/api/v1/models/churn/predictions/"
    example = version.dataset_schema.example
    before = scraped(scraper)
    answer = client.post(path, [example, example], format="json")
    assert answer.status_code == 200
    predicted = "true" if answer.json()["predictions"][0]["prediction"] else "false"
    refused = client.post(path, [example | {"tenure": "abc"}, example | {"contract": "none"}], format="json")
    assert_error(refused, 400, "invalid_input")
    client.get("/api/v1/models/no_such_model_at_all/")
    client.get("/api/v1/no-such-route/")
    after = scraped(scraper)

    def increase(name: str, **labels: str) -> float:
        return (value(after, name, **labels) or 0) - (value(before, name, **labels) or 0)

    route = "/api/v1/models/{model}/predictions/"
    assert increase("vigia_requests_total", route=route, method="POST", status="200") == 1
    assert increase("vigia_requests_total", route=route, method="POST", status="400") == 1
    model_route = "/api/v1/models/{model}/"
    assert increase("vigia_requests_total", route=model_route, method="GET", status="404") == 1
    assert increase("vigia_requests_total", route="unknown", method="GET", status="404") == 1
    assert increase("vigia_predictions_total", model="churn", version="1", **{"class": predicted}) == 2
    assert increase("vigia_prediction_seconds_count", model="churn") == 1
    assert increase("vigia_refusals_total", code="invalid_input") == 1
    assert increase("vigia_refusals_total", code="unknown_model") == 1
    assert increase("vigia_validation_errors_total", code="not_an_integer") == 1
    assert increase("vigia_validation_errors_total", code="not_a_level") == 1
    assert increase("vigia_log_rows_total") == 2
    assert increase("vigia_log_commits_total") == 1
    assert value(after, "vigia_log_queue_rows") == 0
    assert "no_such_model" not in scraper.get("/metrics").content.decode()


# -- figures of the database -------------------------------------------------------------------------------


def review_of(version: ModelVersion, **changed: Any) -> DriftReview:
    now = timezone.now()
    fields: dict[str, Any] = {
        "registered_model": version.registered_model,
        "version": version,
        "since": now - dt.timedelta(hours=24),
        "until": now,
        "rows": 900,
        "verdict": "drift",
        "created_at": now - dt.timedelta(hours=2),
        "scheduled": True,
    }
    return DriftReview.objects.create(**fields | changed)


def finding(review: DriftReview, position: int, column: str, verdict: str, score: float | None) -> None:
    DriftFinding.objects.create(
        review=review, position=position, column=column, kind="number", verdict=verdict,
        rows=900, reference_rows=480, adjusted_psi=score, bins={},
    )  # fmt: skip


def test_metrics_show_the_active_version_and_the_jobs_by_status(
    churn: ModelVersion, scraper: APIClient
) -> None:
    churn = train_sample("churn", rows=600, created_at=timezone.now() - dt.timedelta(days=3))
    TrainingRun.objects.create(registered_model=churn.registered_model, upload=churn.dataset)
    samples = scraped(scraper)
    assert value(samples, "vigia_database_up") == 1
    assert value(samples, "vigia_active_version", model="churn") == churn.number
    info = {"model": "churn", "version": str(churn.number), "engine": churn.engine}
    assert value(samples, "vigia_active_version_info", **info) == 1
    age = value(samples, "vigia_active_version_age_seconds", model="churn")
    assert age == pytest.approx(3 * 86_400, abs=60)
    jobs = {"kind": "training_run", "model": "churn"}
    assert value(samples, "vigia_jobs", **jobs, status="succeeded") == 2
    assert value(samples, "vigia_jobs", **jobs, status="queued") == 1
    assert value(samples, "vigia_jobs", **jobs, status="failed") == 0
    assert value(samples, "vigia_jobs", kind="replay", model="cars", status="running") == 0


def test_the_files_of_batches_and_exports_are_counted_by_model(
    churn: ModelVersion, scraper: APIClient
) -> None:
    job = {"registered_model": churn.registered_model}
    now = timezone.now()
    for number, fields in enumerate(
        (
            {"source_name": "batches/0/source", "source_size": 100, "result_bytes": 20},
            {"location": "nightly", "path": "rows.csv", "source_size": 1_000, "result_bytes": 3},
            {"source_name": "batches/2/source", "source_size": 50_000, "removed_at": now},
        )
    ):
        Batch.objects.create(version=churn, folder=f"batches/{number}", format="csv", **job, **fields)
    LogExport.objects.create(since=now, until=now, size=7, **job)
    samples = scraped(scraper)
    # Not the file of a location, which is not in the store, and not the removed one.
    assert value(samples, "vigia_stored_bytes", model="churn", kind="batches") == 123
    assert value(samples, "vigia_stored_bytes", model="churn", kind="exports") == 7
    assert value(samples, "vigia_jobs", kind="batch", model="churn", status="queued") == 3


def test_finished_jobs_are_counted_once_and_none_is_missed(
    churn: ModelVersion, django_assert_num_queries: Any
) -> None:
    names = {churn.registered_model_id: "churn"}
    database_collector._finished.clear()

    def more(jobs: int, status: str) -> None:
        fields = {"registered_model": churn.registered_model, "upload": churn.dataset, "status": status}
        TrainingRun.objects.bulk_create(TrainingRun(**fields) for _ in range(jobs))

    more(RECENT + 20, "failed")
    count = lambda: database_collector._count_jobs("training_run", TrainingRun, names)  # noqa: E731
    assert count() == {("churn", "succeeded"): 1, ("churn", "failed"): RECENT + 20}
    upto, settled = database_collector._finished["training_run"]
    assert sum(settled.values()) == 21
    more(1, "queued")
    waiting = TrainingRun.objects.get(status="queued")
    more(RECENT * 2, "cancelled")
    first = count()
    assert first == {
        ("churn", "succeeded"): 1,
        ("churn", "failed"): RECENT + 20,
        ("churn", "queued"): 1,
        ("churn", "cancelled"): RECENT * 2,
    }
    assert (
        database_collector._finished["training_run"][0] == waiting.pk - 1
    )  # not beyond a job that may still change
    TrainingRun.objects.filter(pk=waiting.pk).update(status="succeeded")
    assert count() == {
        ("churn", "succeeded"): 2,
        ("churn", "failed"): RECENT + 20,
        ("churn", "cancelled"): RECENT * 2,
    }
    assert database_collector._finished["training_run"][0] > upto
    TrainingRun.objects.exclude(pk=churn.run_id).delete()
    assert count() == {("churn", "succeeded"): 1}  # the process sees a replaced database


def test_metrics_show_the_last_review_only(churn: ModelVersion, scraper: APIClient) -> None:
    old = review_of(churn, verdict="stable")
    finding(old, 0, "tenure", "stable", 0.01)
    finding(old, 1, "gone", "stable", 0.02)
    quality = [
        {
            "version": churn.number,
            "coverage": 0.4,
            "metrics": {"roc_auc": {"value": 0.63}, "brier": {"value": None}, "made_up": {"value": 1.0}},
            "holdout": {"roc_auc": 0.84, "brier": 0.14},
            "fell": True,
        },
        {"version": churn.number + 5, "coverage": 0.1, "metrics": {}, "holdout": {}},
    ]
    expected = {"method": "cbpe", "metrics": {"roc_auc": 0.8}, "holdout": {}, "rows": 900, "reason": ""}
    new = review_of(churn, quality=quality, expected=expected)
    finding(new, 0, "tenure", "drift", 0.31)
    finding(new, 1, "gender", "insufficient", None)
    finding(new, 2, "_probability", "notice", 0.05)
    review_of(churn, scheduled=False, verdict="stable", rows=3)  # an on-demand review
    RegisteredModel.objects.filter(name="houses").update(review_hours=0)
    samples = scraped(scraper)
    labels = {"model": "churn", "version": str(churn.number)}
    assert value(samples, "vigia_review_verdict", **labels, verdict="drift") == 1
    assert value(samples, "vigia_review_verdict", **labels, verdict="stable") == 0
    assert value(samples, "vigia_review_age_seconds", model="churn") == pytest.approx(7200, abs=60)
    assert value(samples, "vigia_review_rows", model="churn") == 900
    assert value(samples, "vigia_review_interval_seconds", model="churn") == 86_400
    assert value(samples, "vigia_review_interval_seconds", model="houses") is None
    assert value(samples, "vigia_drift_score", **labels, column="tenure") == 0.31
    assert value(samples, "vigia_drift_score", **labels, column="_probability") == 0.05
    assert value(samples, "vigia_drift_score", **labels, column="gender") is None
    assert value(samples, "vigia_drift_score", **labels, column="gone") is None
    assert value(samples, "vigia_drift_verdict", **labels, column="tenure") == 2
    assert value(samples, "vigia_drift_verdict", **labels, column="gender") == 0
    assert value(samples, "vigia_quality", **labels, metric="roc_auc") == 0.63
    assert value(samples, "vigia_quality", **labels, metric="brier") is None
    assert value(samples, "vigia_quality", **labels, metric="made_up") is None
    assert value(samples, "vigia_quality_holdout", **labels, metric="brier") == 0.14
    assert value(samples, "vigia_quality_expected", **labels, metric="roc_auc") == 0.8
    fall = value(samples, "vigia_quality_fall_ratio", **labels, metric="roc_auc")
    assert fall == pytest.approx((0.84 - 0.63) / 0.84)
    assert value(samples, "vigia_quality_fell", **labels, metric="roc_auc") == 1
    assert value(samples, "vigia_quality_fell", **labels, metric="brier") is None
    assert value(samples, "vigia_quality_coverage", **labels) == 0.4
    assert not [key for key in samples if ("version", str(churn.number + 5)) in key[1]]


def test_a_worse_estimate_that_is_not_significant_has_not_fallen(
    churn: ModelVersion, scraper: APIClient
) -> None:
    part = {
        "version": churn.number,
        "coverage": 0.1,
        "metrics": {"roc_auc": {"value": 0.63}},
        "holdout": {"roc_auc": 0.84},
        "fell": False,
    }
    labels = {"model": "churn", "version": str(churn.number), "metric": "roc_auc"}
    review_of(churn, quality=[part])
    samples = scraped(scraper)
    assert value(samples, "vigia_quality_fall_ratio", **labels) == pytest.approx(0.25)
    assert value(samples, "vigia_quality_fell", **labels) == 0
    review_of(churn, quality=[part | {"metrics": {}}])
    assert value(scraped(scraper), "vigia_quality_fell", **labels) is None, "the metric is unknown"


def test_a_fall_is_positive_if_the_metric_is_worse() -> None:
    assert fall("rmse", 80.0, 100.0) == pytest.approx(-0.2)
    assert fall("rmse", 120.0, 100.0) == pytest.approx(0.2)
    assert fall("r2", 0.4, 0.8) == pytest.approx(0.5)
    assert fall("r2", -0.7, -0.5) == pytest.approx(0.4)


def test_the_rollup_lag_is_the_time_from_the_last_counted_row_to_the_newest() -> None:
    noon = dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC)
    early, late = lowest_at(noon), lowest_at(noon + dt.timedelta(seconds=90))
    assert lag(None, None, None) == 0
    assert lag(late, early, None) == 90
    assert lag(late, early, noon + dt.timedelta(seconds=60)) == 30
    assert lag(late, early, noon + dt.timedelta(hours=1)) == 0


def test_metrics_show_rollup_lag_and_waiting_outcomes_by_model(
    churn: ModelVersion, scraper: APIClient, client_user: User
) -> None:
    partitions.ensure(timezone.now(), 1)
    now = timezone.now()
    model = churn.registered_model
    for seconds in (0, 40, 100):
        Prediction.objects.create(
            id=lowest_at(now - dt.timedelta(seconds=seconds)), registered_model=model, version=churn,
            client=client_user, cells=[], prediction=True, probability=0.5, warnings=[], request_id="r",
        )  # fmt: skip
    for number in range(3):
        Outcome.objects.create(registered_model=model, key=f"c{number}", actual=True, observed_at=now)
    samples = scraped(scraper)
    assert value(samples, "vigia_rollup_lag_seconds", model="churn") == pytest.approx(100, abs=0.01)
    assert value(samples, "vigia_rollup_lag_seconds", model="cars") == 0
    assert value(samples, "vigia_outcomes_waiting", model="churn") == 3
    hour = (now - dt.timedelta(seconds=40)).replace(minute=0, second=0, microsecond=0)
    RolledHour.objects.create(
        registered_model=model, hour=hour, upto=lowest_at(now - dt.timedelta(seconds=40)), rows=1
    )
    samples = scraped(scraper)
    assert value(samples, "vigia_rollup_lag_seconds", model="churn") == pytest.approx(40, abs=0.01)


def test_the_number_of_queries_of_a_scrape_is_constant(
    churn: ModelVersion, scraper: APIClient, django_assert_num_queries: Any
) -> None:
    for _ in range(2):
        review_of(churn)
    with CaptureQueriesContext(connection) as before:
        scraped(scraper)
    train_sample("churn", rows=600)
    for number in range(20):
        finding(review_of(churn), 0, f"c{number}", "stable", 0.01)
    with django_assert_num_queries(len(before)):
        scraped(scraper)


def test_subscriptions_report_what_waits_and_what_was_given_up(scraper: APIClient, client_user: User) -> None:
    fields = {"channel": "webhook", "owner": client_user}
    first = Subscription.objects.create(name="first", **fields)
    daily = Subscription.objects.create(name="daily", digest_minutes=1440, **fields)
    placed = [Event.objects.create(kind="x", subject=str(each), position=each) for each in range(4)]
    old = timezone.now() - dt.timedelta(hours=1)
    Event.objects.create(kind="x", subject="unplaced", at=old)
    for made, state in zip(placed, ("delivered", "dead", "pending", "pending"), strict=True):
        Delivery.objects.create(
            subscription=first, event=made, position=made.position, state=state, next_at=old, created_at=old,
            finished_at=None if state == "pending" else old,
        )  # fmt: skip
    Delivery.objects.create(
        subscription=daily, event=placed[0], position=0, next_at=timezone.now(), created_at=old
    )
    SubscriptionState.objects.create(subscription=first, delivered=7, failed=5)
    samples = scraped(scraper)
    of_first = {
        name: value(samples, f"vigia_events_{name}", subscription=str(first.pk))
        for name in ("pending", "dead", "delivered_total", "failed_total")
    }
    assert of_first == {"pending": 2, "dead": 1, "delivered_total": 7, "failed_total": 5}
    overdue = [
        value(samples, "vigia_events_overdue_seconds", subscription=str(each.pk)) for each in (first, daily)
    ]
    assert overdue[0] is not None and 3600 <= overdue[0] < 3700
    assert overdue[1] == 0
    unplaced = value(samples, "vigia_events_unplaced_seconds")
    assert unplaced is not None and 3600 <= unplaced < 3700
