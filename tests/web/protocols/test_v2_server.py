"""The protocol on a real server: no thread is needed for an answer or a probe, and a retry is safe."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User

from predictions.models import Prediction
from tests.server import Server
from tests.web.protocols.v2_requests import CHURN, HEADER, binary, outputs, request, tensors
from tests.web.test_server import threads_held
from training.access import client_keys
from training.models import ModelVersion

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def running(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"), WEB_CONCURRENCY="1", PREDICT_MAX_BYTES="100000")
    server.start()
    yield server
    server.stop()


def ask(server: Server, key: str, body: bytes, **headers: str) -> tuple[int, dict[str, str], Any]:
    """Sends a request without a Content-Type, as tritonclient does."""
    connection = server.connect()
    sent = {"Authorization": f"Bearer {key}"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    try:
        connection.request("POST", CHURN, body, sent)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def test_answers_and_probes_need_no_thread(
    running: Server, churn: ModelVersion, client_user: User, customer: dict[str, Any]
) -> None:
    key = client_keys.issue(client_user)
    plain = json.dumps(request([customer], id="1")).encode()
    packed, length = binary(tensors([customer]), parameters={"binary_data_output": True})
    for _ in range(2):
        assert ask(running, key, plain)[0] == 200
    with threads_held(running):
        started = time.monotonic()
        status, headers, first = ask(running, key, plain, Idempotency_Key="json")
        assert (status, headers["Content-Type"]) == (200, "application/json"), first
        status, headers, second = ask(
            running, key, packed, Idempotency_Key="binary", Inference_Header_Content_Length=length
        )
        assert (status, headers["Content-Type"]) == (200, "application/octet-stream"), second
        for probe in ("live", "ready"):
            assert running.ask("GET", f"/v2/health/{probe}")[0] == 200
        assert time.monotonic() - started < 1.9, "an answer waited for a thread"
    given = outputs(second, headers[HEADER])
    assert given == outputs(first)
    for body, name, stored, sent in (
        (plain, "json", first, {}),
        (packed, "binary", second, {"Inference_Header_Content_Length": length}),
    ):
        status, headers, again = ask(running, key, body, Idempotency_Key=name, **sent)
        assert (status, again) == (200, stored)
        assert headers["Idempotent-Replayed"] == "true"
    assert Prediction.objects.count() == 4


def test_the_server_refuses_in_the_protocols_shape(
    running: Server, churn: ModelVersion, client_user: User
) -> None:
    """Also where Django never sees the request, or sees it before a view does."""
    key = client_keys.issue(client_user)
    for body, headers, status in (
        (b"x" * 200_000, {}, 413),
        (b"{}", {"Content_Encoding": "gzip"}, 415),
        (b"{}", {"Content_Type": "application/json; charset=latin-1"}, 415),
        (b"{}", {"Host": "elsewhere"}, 400),
    ):
        answered, _, sent = ask(running, key, body, **headers)
        assert answered == status
        [(name, words)] = json.loads(sent).items()
        assert name == "error" and isinstance(words, str)
