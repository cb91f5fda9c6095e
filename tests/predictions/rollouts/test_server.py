"""Shadow and canary between real processes: the lane leaves its rows, a stop binds all of them at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from predictions.models import Prediction, ShadowAnswer, ShadowTally
from tests.server import Clients, Server
from tests.trained import train_sample
from training.access import client_keys
from training.models import ModelVersion
from training.registry import rollouts
from training.serving import canary_assignment

CHURN = "/api/v1/models/churn/predictions/"
pytestmark = pytest.mark.django_db(transaction=True)


def test_rollouts_work_across_processes(
    churn: ModelVersion, client_user: User, customer: dict[str, Any], tmp_path: Path
) -> None:
    candidate = train_sample("churn", rows=600, activate=False)
    shadow = rollouts.start(candidate, kind="shadow", by=None, reason="a test")
    key = client_keys.issue(client_user)
    server = Server(tmp_path, SHADOW_LAG_SECONDS="60")
    server.start()
    try:
        # In both processes, first the ordinary way and then in the lane.
        for _ in range(20):  # a few connections may all be one process's
            with Clients(server, key, CHURN, [customer] * 2, number=4) as clients:
                clients.await_answers(60)
            maps = [Path(f"/proc/{worker}/maps").read_text() for worker in server.workers()]
            if all("onnxruntime" in mapped for mapped in maps):
                break
        for mapped in maps:
            assert "onnxruntime" in mapped and "/pandas/" not in mapped and "/sklearn/" not in mapped

        # A canary for everybody, and its end: from the commit on, no process answers by it.
        canary = rollouts.start(
            candidate, kind="canary", percent=100.0, by=None, reason="a test", override=True
        )
        with Clients(server, key, CHURN, customer, number=4) as tried:
            tried.await_answers(60)
            stopping = time.monotonic()
            rollouts.stop(canary, by=None, reason="enough")
            ended = time.monotonic()
            tried.await_answers(60)
        assert canary_assignment.is_in(candidate.pk, client_user.pk, canary_assignment.threshold(100.0))
        assert {version for _, version, asked, _ in tried.answers if asked > ended} == {1}
        assert {version for _, version, _, answered in tried.answers if answered < stopping} == {2}
        assert tried.others == clients.others == []
    finally:
        server.stop()
    # The shadow predicted the queued rows before the stopped server's processes ended.
    answered = set(Prediction.objects.filter(version=churn).values_list("id", flat=True))
    assert set(ShadowAnswer.objects.values_list("prediction_id", flat=True)) == answered
    assert len(answered) > 100, "at least 60 before the canary and nearly 60 after it"
    tally = ShadowTally.objects.filter(rollout=shadow).values_list("answered", "dropped", "failed")
    assert tuple(map(sum, zip(*tally, strict=True))) == (len(answered), 0, 0)
    assert "Traceback" not in server.printed()
