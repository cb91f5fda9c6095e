"""Admissions of the fast path when the generation changes while a thread admits a request."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from knox.models import AuthToken
from rest_framework.test import APIClient

from tests import fast_path
from tests.conftest import Post, keyed
from training.access import client_keys
from training.models import ModelVersion
from web.fast_path import FastPath

pytestmark = pytest.mark.django_db(transaction=True)
ADDRESS = "/api/v1/models/churn/predictions/"


def test_a_thread_that_admits_late_does_not_admit_a_revoked_key_to_the_next_generation(
    churn: ModelVersion,
    api: APIClient,
    post: Post,
    client_user: User,
    customer: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Large bodies are admitted in threads, small ones in the event loop."""
    shared = FastPath()
    revoked = str(api._credentials["HTTP_AUTHORIZATION"])
    valid = keyed(client_user)
    assert post(ADDRESS, customer).status_code == 200
    admitting, going_on = threading.Event(), threading.Event()
    key_of = client_keys.key_of

    def slowly(authorization: str) -> str | None:
        if threading.current_thread() is late:
            admitting.set()
            assert going_on.wait(30)
        return key_of(authorization)

    late_replies: list[object] = []

    def ask_late() -> None:
        try:
            late_replies.append(fast_path.ask(shared, ADDRESS, customer, revoked))
        finally:
            connections.close_all()

    late = threading.Thread(target=ask_late)
    monkeypatch.setattr(client_keys, "key_of", slowly)
    late.start()
    assert admitting.wait(10)
    AuthToken.objects.earliest("created").delete()
    assert valid.post(ADDRESS, customer, format="json").status_code == 200  # loads the next generation
    quick = fast_path.ask(shared, ADDRESS, customer, str(valid._credentials["HTTP_AUTHORIZATION"]))
    assert quick is not None
    assert quick.status == 200
    going_on.set()
    late.join()
    assert late_replies == [None], "the fence refuses its answer"
    assert fast_path.ask(shared, ADDRESS, customer, revoked) is None
    assert post(ADDRESS, customer).status_code == 401
