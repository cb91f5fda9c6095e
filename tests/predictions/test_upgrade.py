"""A database of an old schema, with data in it, is migrated to today's and read through the API."""

from __future__ import annotations

import csv
import datetime as dt
import io
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
from django.core.management import call_command
from django.db import ProgrammingError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone
from knox.crypto import create_token_string, hash_token
from rest_framework.test import APIClient

from core import uuid7
from predictions.log import writer
from predictions.models.log import _NAMES as names_of_columns
from tests.conftest import assert_error
from training.serving import engine_cache, routing

OLD: Final = [
    ("admin", "0003_logentry_add_action_flag_choices"),
    ("contenttypes", "0002_remove_content_type_name"),
    ("auth", "0012_alter_user_first_name_max_length"),
    ("sessions", "0001_initial"),
    ("knox", "0009_extend_authtoken_field"),
    ("training", "0001_squashed_0011_profiles_written_once"),
    ("predictions", "0001_squashed_0008_changed_hours"),
    ("recommender", "0001_initial"),
]
SCHEMA: Final = {
    "columns": [
        {"name": "tenure", "type": "integer", "minimum": 0, "maximum": 72},
        {"name": "contract", "type": "category", "levels": ["month-to-month", "one_year"]},
        {"name": "charges", "type": "number", "nullable": True},
    ],
    "target": {"name": "churn", "type": "boolean"},
    "key": None, "key_aliases": [], "ignored": [], "fold_names": True,
}  # fmt: skip
BINS: Final = {
    "columns": [
        {"name": "tenure", "kind": "number", "edges": [10.0, 40.0], "exact": False, "counts": [5, 9, 6, 0],
         "sums": [20.0, 200.0, 330.0, 0.0], "deviation": 20.1, "truth": {}},
        {"name": "contract", "kind": "level", "levels": {"month-to-month": 0, "one_year": 1},
         "named": ["month-to-month", "one_year"],
         "counts": [12, 8, 0, 0], "sums": [], "deviation": None, "truth": {}},
        {"name": "charges", "kind": "number", "edges": [50.0], "exact": False, "counts": [10, 8, 2],
         "sums": [300.0, 600.0, 0.0], "deviation": 21.0, "truth": {}},
    ],
    "answers": [
        {"name": "_prediction", "kind": "level", "levels": {"false": 0, "true": 1},
         "named": ["false", "true"], "counts": [3, 1, 0, 0], "sums": [0.0, 0.0, 0.0, 0.0], "deviation": None,
         "truth": {"hits": [2, 1, 0, 0]}},
        {"name": "_probability", "kind": "number", "edges": [0.5], "exact": False, "counts": [3, 1, 0],
         "sums": [0.6, 0.7, 0.0], "deviation": 0.2, "truth": {"hits": [1, 1, 0]}},
    ],
}  # fmt: skip
GATE: Final = {"passed": True, "checks": [{"name": "beats_baseline", "passed": True, "message": "it does"}]}
METRICS: Final = {"roc_auc": 0.81, "accuracy": 0.79}
FOUND: Final = {
    "labels": ["below 10", "10 to 40", "above", "missing"],
    "reference": [5, 9, 6, 0],
    "window": [4, 0, 0, 0],
}
THEN: Final = timezone.now().replace(microsecond=0) - dt.timedelta(days=2)
LONG_AGO: Final = dt.datetime(2026, 1, 5, 12, tzinfo=dt.UTC)


@pytest.fixture
def old(transactional_db: None) -> Iterator[Any]:
    """Yields the old schema's models on a separate database that `connection` uses meanwhile."""
    before, name = connection.settings_dict["NAME"], f"{connection.settings_dict['NAME']}_old"
    with connection.cursor() as cursor:
        cursor.execute(f'DROP DATABASE IF EXISTS "{name}"')
        cursor.execute(f'CREATE DATABASE "{name}"')
    forget(name)
    try:
        executor = MigrationExecutor(connection)
        executor.migrate(OLD)
        # An old installation knows only the migrations that were squashed later.
        MigrationRecorder.Migration.objects.filter(name__contains="_squashed_").delete()
        yield executor.loader.project_state(OLD).apps
    finally:
        forget(before)
        drop(name)


def drop(name: str) -> None:
    """Drops a database; waits for autovacuum, whose process only a superuser may end."""
    until = time.monotonic() + 30
    while True:
        try:
            with connection.cursor() as cursor:
                cursor.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        except ProgrammingError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return


def forget(name: str) -> None:
    """Clears this process's caches, which belong to another database."""
    writer.renew()
    engine_cache.forget()
    routing.forget()
    names_of_columns.clear()
    connection.close()
    connection.settings_dict["NAME"] = name


def fill(apps: Any) -> dict[str, Any]:
    """Creates rows as the old code wrote them."""

    def add(label: str, **fields: Any) -> Any:
        return apps.get_model(label).objects.create(**fields)

    user = add("auth.User", username="boss", is_superuser=True, is_staff=True, is_active=True)
    key, token = create_token_string(), apps.get_model("knox.AuthToken")
    token.objects.create(digest=hash_token(key), token_key=key[:15], user=user, expiry=None)
    expired = create_token_string()
    token.objects.create(digest=hash_token(expired), token_key=expired[:15], user=user, expiry=THEN)
    model = add("training.RegisteredModel", name="churn", title="Churn", policy="manual")
    add("training.RegisteredModel", name="movies", title="Movies", policy="manual")
    dataset = add(
        "training.Dataset", registered_model=model, sha256="d" * 64, rows=20, size=900,
        schema_sha256="5" * 64, source="churn.csv", created_by=user,
    )  # fmt: skip
    versions = []
    for number in (1, 2):
        run = add(
            "training.TrainingRun", registered_model=model, status="succeeded", stage="finished", percent=100,
            mode="replace", upload=dataset, dataset=dataset, requested_by=user, attempts=1, queued_at=THEN,
            started_at=THEN, finished_at=THEN,
        )  # fmt: skip
        version = add(
            "training.ModelVersion", registered_model=model, number=number, run=run, dataset=dataset,
            status="candidate", metrics=METRICS, baseline={"roc_auc": 0.5}, gate=GATE, threshold=0.5,
            schema=SCHEMA, schema_sha256="5" * 64, train_rows=16, holdout_rows=4, engine="sklearn",
            artifact_sha256="a" * 64, artifact_hmac="b" * 64, artifact_size=10,
            libraries={"scikit-learn": "1.9"}, seed=1, created_by=user, created_at=THEN,
        )  # fmt: skip
        add("training.ReferenceProfile", version=version, bins=BINS)
        versions.append(version)
    for number, status, at in ((1, "retired", LONG_AGO), (2, "active", THEN - dt.timedelta(hours=3))):
        version = versions[number - 1]
        apps.get_model("training.ModelVersion").objects.filter(pk=version.pk).update(status=status)
        add(
            "training.Activation", registered_model=model, version=version, kind="activate", actor=user,
            gate=GATE, previous=versions[0] if number == 2 else None, reason=f"number {number}", at=at,
        )  # fmt: skip
    add("training.TrainingRun", registered_model=model, status="queued", mode="append", upload=dataset)
    ids = []
    for n in range(6):
        at = LONG_AGO + dt.timedelta(minutes=n) if n < 2 else THEN + dt.timedelta(minutes=n)
        ids.append(uuid7.lowest_at(at))
        add(
            "predictions.Prediction", id=ids[n], registered_model=model, version=versions[n > 1], client=user,
            key=f"customer-{n}", cells=[n, "one_year", None if n == 3 else 20.5], prediction=n % 2 == 0,
            probability=0.25 + n / 100, warnings=[], request_id=f"r-{n}",
        )  # fmt: skip
    for n, actual in ((2, True), (2, False), (4, True)):
        add(
            "predictions.Outcome", registered_model=model, prediction_id=ids[n], actual=actual,
            observed_at=THEN + dt.timedelta(hours=1), client=user,
        )  # fmt: skip
    add("predictions.Outcome", registered_model=model, key="nobody", actual=True, observed_at=THEN)
    review = add(
        "predictions.DriftReview", registered_model=model, version=versions[1], since=THEN, kept=True,
        until=THEN + dt.timedelta(hours=1), rows=4, verdict="drift", reason="tenure drifted",
        requested_by=user,
    )  # fmt: skip
    add(
        "predictions.DriftFinding", review=review, position=0, column="tenure", kind="number",
        verdict="drift", rows=4, reference_rows=20, psi=0.4, bins=FOUND,
    )  # fmt: skip
    movie = add("recommender.Movie", id=7, title="El faro", title_key="el faro", genres=["Drama"], year=2001)
    add("recommender.Interaction", user="reader", movie=movie, kind="liked", at=THEN, client=user)
    return {"key": key, "expired": expired, "ids": [str(each) for each in ids], "review": review.pk}


def test_an_old_database_is_migrated_and_read_through_the_api(old: Any) -> None:
    known = fill(old)
    recorded = set(MigrationRecorder.Migration.objects.values_list("app", "name"))
    assert {("training", "0011_profiles_written_once"), ("predictions", "0008_changed_hours")} <= recorded
    call_command("migrate", verbosity=0)
    api = APIClient()

    def read(path: str, **query: Any) -> Any:
        answer = api.get(f"/api/v1/{path}", query)
        assert answer.status_code == 200, (path, answer.content)
        return answer.json() if answer.headers["Content-Type"].startswith("application/json") else answer

    api.credentials(HTTP_AUTHORIZATION=f"Token {known['expired']}")
    assert_error(api.get("/api/v1/models/"), 401, "bad_key")
    api.credentials(HTTP_AUTHORIZATION=f"Token {known['key']}")

    shown = {row["name"]: row for row in read("models/")}
    assert (shown["churn"]["active_version"], shown["churn"]["policy"]) == (2, "manual")
    assert [row["status"] for row in read("models/churn/versions/")] == ["active", "retired"]
    version = read("models/churn/versions/2/")
    assert (version["metrics"], version["gate"], version["threshold"]) == (METRICS, GATE, 0.5)
    assert version["schema"]["columns"] == SCHEMA["columns"]
    assert version["lineage"]["dataset_sha256"] == "d" * 64
    assert read("models/churn/active/")["version"] == 2
    assert read("models/churn/active/", at="2026-01-05T12:30:00Z")["version"] == 1
    runs = read("models/churn/training-runs/")
    assert [row["status"] for row in runs] == ["queued", "succeeded", "succeeded"]
    assert runs[1]["dataset"] == {"sha256": "d" * 64, "rows": 20}

    page = read("models/churn/predictions/")
    assert [row["id"] for row in page["predictions"]] == known["ids"][::-1], "of two months, the newest first"
    assert page["predictions"][2]["inputs"] == {"tenure": 3, "contract": "one_year", "charges": None}
    [found] = read("models/churn/predictions/", key="customer-1")["predictions"]
    assert (found["version"], found["probability"]) == (1, 0.26)
    exported = read("models/churn/predictions/", format="csv")
    lines = list(csv.DictReader(io.StringIO(b"".join(exported).decode())))
    assert [line["id"] for line in lines] == known["ids"][::-1]
    row = read(f"predictions/{known['ids'][2]}/")
    assert (row["client"], row["outcome"]["actual"], row["outcome"]["corrections"]) == ("boss", False, 1)
    assert row["lineage"]["activation"]["reason"] == "number 2"
    outcomes = read("models/churn/outcomes/")["outcomes"]
    assert {each["prediction"] for each in outcomes} == {known["ids"][2], known["ids"][4], None}
    quality = read("models/churn/quality/", since=(THEN - dt.timedelta(days=1)).isoformat())
    assert quality["versions"], "labelled rows of the old log count"

    [review] = read("models/churn/drift/reviews/")
    assert (review["id"], review["drifting"], review["kept"]) == (known["review"], ["tenure"], True)
    assert read(f"models/churn/drift/{known['review']}/")["findings"][0]["psi"] == 0.4
    assert read("movies/7/")["title"] == "El faro"
    assert [each["user"] for each in read("interactions/")["interactions"]] == ["reader"]
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
