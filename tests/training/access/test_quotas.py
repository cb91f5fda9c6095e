"""Quotas of client keys: bytes in a day, pushes in a day; a disk's reserve that uploads may not take."""

from __future__ import annotations

import json
import shutil
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.utils import timezone
from knox.models import AuthToken

from core.errors import QuotaExceeded
from tests.conftest import Post, assert_error, at_once, keyed
from training.access import client_keys, quotas
from training.models import Dataset, ModelVersion, StoredUpload, TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)

RUNS = "/api/v1/models/churn/training-runs/"
WAITING = "SELECT count(*) FROM pg_locks WHERE relation = 'training_dataset'::regclass AND NOT granted"
UPLOAD, PUSH = StoredUpload.Kind.UPLOAD, StoredUpload.Kind.PUSH


@pytest.fixture
def key(client_user: User) -> AuthToken:
    client_keys.issue(client_user)
    token: AuthToken = AuthToken.objects.get(user=client_user)
    return token


def charge(key: AuthToken, kind: StoredUpload.Kind, size: int) -> None:
    with quotas.charged(key.user, key, kind, size):
        pass


def test_a_key_stores_no_more_than_its_quota_in_a_day(key: AuthToken, settings: Any) -> None:
    settings.UPLOAD_QUOTA_BYTES = 100
    charge(key, UPLOAD, 60)
    with pytest.raises(QuotaExceeded) as raised:
        charge(key, PUSH, 41)
    assert 86_300 < raised.value.retry_after <= 86_401
    charge(key, PUSH, 40)
    with pytest.raises(QuotaExceeded):
        charge(key, UPLOAD, 101)
    StoredUpload.objects.filter(size=60).update(at=timezone.now() - timedelta(hours=23, minutes=59))
    with pytest.raises(QuotaExceeded) as raised:
        charge(key, UPLOAD, 30)
    assert 1 <= raised.value.retry_after <= 61
    StoredUpload.objects.filter(size=60).update(at=timezone.now() - timedelta(hours=25))
    charge(key, UPLOAD, 60)
    assert StoredUpload.objects.count() == 2, "older rows are deleted"


def test_another_key_has_its_own_quota_and_a_failed_request_costs_nothing(
    key: AuthToken, settings: Any
) -> None:
    settings.UPLOAD_QUOTA_BYTES = 100
    charge(key, UPLOAD, 100)
    client_keys.issue(key.user)
    charge(AuthToken.objects.exclude(pk=key.pk).get(), UPLOAD, 100)
    settings.UPLOAD_QUOTA_BYTES = 0
    with pytest.raises(ZeroDivisionError), quotas.charged(key.user, key, UPLOAD, 1_000):
        raise ZeroDivisionError
    assert StoredUpload.objects.count() == 2


def test_a_key_pushes_no_more_versions_than_its_quota(key: AuthToken, settings: Any) -> None:
    settings.PUSHES_PER_DAY = 2
    charge(key, PUSH, 1)
    charge(key, PUSH, 1)
    charge(key, UPLOAD, 1)
    with pytest.raises(QuotaExceeded, match="2 versions"):
        charge(key, PUSH, 1)


def test_concurrent_uploads_together_stay_within_the_quota(key: AuthToken, settings: Any) -> None:
    settings.UPLOAD_QUOTA_BYTES = 100
    refused, lock = [0], threading.Lock()

    def upload() -> None:
        try:
            charge(key, UPLOAD, 30)
        except QuotaExceeded:
            with lock:
                refused[0] += 1

    at_once(*[upload] * 8)
    assert (StoredUpload.objects.count(), refused[0]) == (3, 5)


def test_a_training_request_over_the_quota_is_refused_with_429_and_stores_nothing(
    churn: ModelVersion, post: Post, customer: dict[str, Any], settings: Any
) -> None:
    settings.UPLOAD_QUOTA_BYTES = 1_000
    row = customer | {"churn": "no"}
    assert post(RUNS, {"instances": [row]}).status_code == 202
    runs, datasets = TrainingRun.objects.count(), Dataset.objects.count()
    answer = post(RUNS, {"instances": [row | {"tenure": month} for month in range(9)]})
    error = assert_error(answer, 429, "quota_exceeded")
    assert "UPLOAD_QUOTA_BYTES" in error["message"]
    assert int(answer.headers["Retry-After"]) > 86_000
    csv = ",".join(row) + "\n" + "\n".join(",".join(map(str, row.values())) for _ in range(9))
    assert_error(post(RUNS, csv, "text/csv"), 429, "quota_exceeded")
    assert (TrainingRun.objects.count(), Dataset.objects.count()) == (runs, datasets)
    settings.UPLOAD_QUOTA_BYTES = 10_000
    assert post(RUNS, {"instances": [customer]}).status_code == 400
    assert StoredUpload.objects.count() == 1, "a refused request is not counted"
    assert post("/api/v1/models/churn/predictions/", customer).status_code == 200


def test_uploads_leave_the_disk_its_reserve_and_predictions_go_on(
    churn: ModelVersion, post: Post, customer: dict[str, Any], settings: Any
) -> None:
    settings.STORE_RESERVE_BYTES = shutil.disk_usage("/").total
    answer = post(RUNS, {"instances": [customer | {"churn": "no"}]})
    error = assert_error(answer, 503, "store_unavailable")
    assert "no space left" in error["message"]
    assert post("/api/v1/models/churn/predictions/", customer).status_code == 200


def test_an_upload_of_a_key_does_not_wait_for_another_one_to_be_stored(
    churn: ModelVersion, client_user: User, customer: dict[str, Any]
) -> None:
    """The first one waits in its transaction, which its idempotency key opens."""
    answers: list[int] = []

    def upload() -> None:
        try:
            body = json.dumps({"instances": [customer | {"churn": "no", "tenure": 7}]})
            headers = {"Idempotency-Key": "first"}
            sent = keyed(client_user).generic(
                "POST", RUNS, body, content_type="application/json", headers=headers
            )
            answers.append(sent.status_code)
        finally:
            connections.close_all()

    first = threading.Thread(target=upload)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE training_dataset IN EXCLUSIVE MODE")
        first.start()
        until, waits = time.monotonic() + 20, False
        while not waits:
            assert time.monotonic() < until
            cursor.execute(
                "SELECT count(*) FROM pg_locks WHERE relation = 'training_dataset'::regclass AND NOT granted"
            )
            waits = cursor.fetchone() != (0,)
        cursor.execute("SET LOCAL lock_timeout = '2s'")
        charge(AuthToken.objects.get(user=client_user), UPLOAD, 1)
    first.join(20)
    assert answers == [202]
    assert StoredUpload.objects.count() == 2


def test_a_repeated_request_is_counted_once(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    body = {"instances": [customer | {"churn": "no"}]}
    for _ in range(2):
        assert post(RUNS, body, **{"Idempotency-Key": "again"}).status_code == 202
    assert StoredUpload.objects.count() == 1
