"""The time of a logged answer identifies its version, across real processes under repeated activations."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User

from core.uuid7 import time_of
from predictions.models import Prediction
from tests.server import Clients, Server
from tests.trained import train_sample
from training.access import client_keys
from training.models import Activation, ModelVersion

MODEL = "/api/v1/models/churn"
SWITCHES = 80
CONNECTIONS = 4
pytestmark = pytest.mark.django_db(transaction=True)


def test_every_answer_is_from_the_version_active_at_its_time(
    churn: ModelVersion, client_user: User, customer: dict[str, Any], tmp_path: Path
) -> None:
    train_sample("churn", rows=600, activate=False)
    key = client_keys.issue(client_user)
    server = Server(tmp_path)
    server.start()
    try:
        with Clients(server, key, f"{MODEL}/predictions/", customer, number=CONNECTIONS) as clients:
            clients.await_answers(40)
            for switch in range(SWITCHES):
                path = f"{MODEL}/versions/{2 - switch % 2}/activate/"
                status, _, done = server.ask("POST", path, {"reason": f"switch {switch}"}, key=key)
                assert status == 200, done
                clients.await_answers(2 * CONNECTIONS)
        assert clients.others == []
        assert clients.broken == 0
        # An answer carries the time of its id; answers of one millisecond have the same time.
        versions = {(time_of(uuid.UUID(ids[0])), version) for ids, version, _, _ in clients.answers}
        assert {version for _, version in versions} == {1, 2}

        def active_at(moment: str) -> int:
            status, _, body = server.ask("GET", f"{MODEL}/active/?at={quote(moment)}", key=key)
            assert status == 200, body
            return int(body["version"])

        expected = sorted(versions)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            named = list(pool.map(active_at, [moment.isoformat() for moment, _ in expected]))
        disagreements = [
            (moment.isoformat(), version, name)
            for (moment, version), name in zip(expected, named, strict=True)
            if version != name
        ]
        assert disagreements == []
    finally:
        server.stop()
    assert Activation.objects.count() == SWITCHES + 1
    # The log holds the answers, and the times of its rows are those of the ids.
    answered = {ids[0]: version for ids, version, _, _ in clients.answers}
    logged = Prediction.objects.select_related("version").in_bulk(list(answered))
    assert len(logged) == len(answered) == Prediction.objects.count()
    for row in logged.values():
        assert (row.version.number, row.at) == (answered[str(row.pk)], time_of(row.pk))
    assert "Traceback" not in server.printed()
