"""The limit on wrong passwords: it counts by user and address, and does not touch client keys."""

from __future__ import annotations

import base64
import datetime as dt
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from tests.conftest import assert_error
from training.access import client_keys
from training.models import ModelVersion
from web.logins import client_address

LOGIN = "/admin/login/?next=/admin/"
RIGHT = "a long watch by night"
HERE, ELSEWHERE = "198.51.100.7", "203.0.113.9"


@pytest.fixture
def warden(db: None, settings: Any) -> User:
    settings.AXES_FAILURE_LIMIT = 3
    return User.objects.create_superuser("warden", password=RIGHT)


def log_in(password: str, *, username: str = "warden", address: str = HERE, **headers: str) -> Any:
    form = {"username": username, "password": password}
    return Client(headers=headers).post(LOGIN, form, REMOTE_ADDR=address)


def lock_out(times: int = 3, **where: str) -> Any:
    return [log_in(f"guess {n}", **where) for n in range(times)][-1]


def test_a_login_is_refused_after_too_many_wrong_passwords(warden: User) -> None:
    assert lock_out(2).status_code == 200, "the form again"
    refused = lock_out(1)
    error = assert_error(refused, 429, "too_many_attempts")
    assert "try again in 15 minutes" in error["message"]
    assert refused.headers["Retry-After"] == "900"
    assert log_in(RIGHT).status_code == 429, "the right one, now too late"
    page = log_in(RIGHT, accept="text/html")
    assert page.status_code == 429
    assert page.headers["Retry-After"] == "900"
    assert "Too many attempts" in page.content.decode()
    assert "Content-Security-Policy" in page.headers


def test_wrong_passwords_from_one_address_do_not_lock_other_addresses_or_users(warden: User) -> None:
    User.objects.create_superuser("other", password=RIGHT)
    lock_out(5, address=ELSEWHERE)
    lock_out(5, address=ELSEWHERE, username="nobody")
    assert log_in(RIGHT, address=HERE).status_code == 302
    assert log_in(RIGHT, address=ELSEWHERE, username="other").status_code == 302, "the same office"
    assert log_in(RIGHT, address=ELSEWHERE).status_code == 429


def test_a_login_resets_the_count_of_wrong_passwords(warden: User) -> None:
    for _ in range(3):
        lock_out(2)
        assert log_in(RIGHT).status_code == 302


def test_a_lock_ends_after_its_time_and_by_the_command(warden: User) -> None:
    lock_out()
    call_command("axes_reset_username", "warden")
    assert log_in(RIGHT).status_code == 302
    lock_out()
    assert log_in(RIGHT).status_code == 429
    attempt = AccessAttempt.objects.get()
    attempt.attempt_time -= dt.timedelta(minutes=16)
    attempt.save()
    assert log_in(RIGHT).status_code == 302


def test_no_password_is_stored_with_an_attempt(warden: User) -> None:
    log_in("a guess that is nearly right")
    attempt = AccessAttempt.objects.get()
    assert "nearly right" not in attempt.post_data + attempt.get_data


def test_a_client_cannot_choose_its_address(settings: Any) -> None:
    def seen(address: str, **headers: str) -> str | None:
        return client_address(RequestFactory().get("/", headers=headers, REMOTE_ADDR=address))

    forged = {"X-Forwarded-For": "192.0.2.1", "X-Real-IP": "192.0.2.2", "Forwarded": "for=192.0.2.3"}
    assert seen(HERE, **forged) == HERE, "nothing is trusted without a proxy"
    settings.CLIENT_ADDRESS_HEADER = "X-Forwarded-For"
    assert seen("10.0.0.1", **{"X-Forwarded-For": f"192.0.2.1, {HERE}"}) == HERE
    assert seen("10.0.0.1") == "10.0.0.1"
    settings.TRUSTED_PROXIES = 2
    assert seen("10.0.0.1", **{"X-Forwarded-For": f"192.0.2.1, {HERE}, 10.0.0.2"}) == HERE
    assert seen("10.0.0.1", **{"X-Forwarded-For": HERE}) == "10.0.0.1", "a proxy was passed by"
    settings.CLIENT_ADDRESS_HEADER = ""
    assert seen("2001:db8:1:2:aaaa::1") == seen("2001:db8:1:2:bbbb::2") == "2001:db8:1:2::"
    assert seen("2001:db8:1:3::1") == "2001:db8:1:3::"
    assert seen(f"::ffff:{HERE}") == HERE
    assert seen("") is seen("unix") is None


def test_a_wrong_key_locks_no_login_and_costs_one_query(
    churn: ModelVersion, api: APIClient, client_user: User, customer: dict[str, Any]
) -> None:
    wrong = APIClient()
    wrong.credentials(HTTP_AUTHORIZATION=f"Token {'a' * 64}")
    path = "/api/v1/models/churn/"
    for _ in range(15):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert_error(wrong.get(path), 401, "bad_key")
        assert len(queries) == 1, "one look-up by the key's hash"
    basic = APIClient()
    encoded = base64.b64encode(f"x:{client_keys.issue(client_user)}".encode()).decode()
    basic.credentials(HTTP_AUTHORIZATION=f"Basic {encoded}")
    with CaptureQueriesContext(connection) as queries:
        assert basic.get(path).status_code == 200
        assert api.get(path).status_code == 200
    assert not [each for each in queries.captured_queries if "axes" in each["sql"]]
    assert not AccessAttempt.objects.exists()
