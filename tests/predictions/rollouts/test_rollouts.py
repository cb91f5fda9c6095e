"""A canary answers its clients on every route alike; a shadow is asked what was answered, and harms none."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from rest_framework.test import APIClient

from core.uuid7 import time_of
from predictions.models import Prediction, ShadowAnswer, ShadowTally
from predictions.rollouts import shadow_retention, shadow_worker
from tests import fast_path
from tests.conftest import keyed
from tests.predictions.log.test_fence import at_its_commit
from tests.trained import train_sample
from training import artifacts
from training.access import client_keys
from training.models import ModelVersion, Rollout
from training.registry import activation, rollouts
from training.serving import canary_assignment, engine_cache, routing
from web.fast_path import FastPath

CHURN = "/api/v1/models/churn/predictions/"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _close_shadow_worker() -> Iterator[None]:
    yield
    shadow_worker.renew()


@pytest.fixture
def candidate(churn: ModelVersion) -> ModelVersion:
    """Returns a version trained on other rows than the active one, so that its answers differ."""
    return train_sample("churn", rows=900, activate=False)


def begin(version: ModelVersion, kind: str = "shadow", percent: float | None = None) -> Rollout:
    return rollouts.start(version, kind=kind, percent=percent, by=None, reason="a test", override=True)


def settled() -> None:
    assert shadow_worker.worker().settle(20)


def tallied(rollout: Rollout) -> tuple[int, int, int]:
    rows = ShadowTally.objects.filter(rollout=rollout).values_list("answered", "dropped", "failed")
    return tuple(map(sum, zip(*rows, strict=True))) or (0, 0, 0)  # type: ignore[return-value]


def both_sides(version: ModelVersion, percent: float) -> tuple[APIClient, APIClient]:
    """Returns a client of the canary of `version`, and a client of the active version."""
    clients: dict[bool, APIClient] = {}
    number = 0
    while len(clients) < 2:
        user = client_keys.client_with_every_right(f"client{number}")
        number += 1
        clients.setdefault(
            canary_assignment.is_in(version.pk, user.pk, canary_assignment.threshold(percent)), keyed(user)
        )
    return clients[True], clients[False]


@contextmanager
def missing_from_store(version: ModelVersion) -> Iterator[None]:
    """The bytes this version is served from are gone, and nobody has it loaded."""
    name = f"artifacts/{version.compiled_sha256[:2]}/{version.compiled_sha256}"
    with default_storage.open(name) as stored:
        kept = stored.read()
    default_storage.delete(name)
    engine_cache.forget()
    try:
        yield
    finally:
        default_storage.save(name, ContentFile(kept))


def asked_on_the_fast_path(client: APIClient, path: str, data: Any) -> dict[str, Any] | None:
    """The fast path's answer; None when it declines."""
    reply = fast_path.ask(FastPath(), path, data, client._credentials["HTTP_AUTHORIZATION"])
    if reply is None:
        return None
    assert reply.status == 200, reply
    found: dict[str, Any] = json.loads(reply.body)
    return found


# -- canary --------------------------------------------------------------------------------------------


def test_every_route_gives_a_client_the_same_arm(candidate: ModelVersion, customer: dict[str, Any]) -> None:
    begin(candidate, "canary", 50.0)
    table = f"{','.join(customer)}\n{','.join(str(value) for value in customer.values())}\n"
    for client, number in zip(both_sides(candidate, 50.0), (2, 1), strict=True):
        before = Prediction.objects.count()
        for answered in (
            client.post(CHURN, customer, format="json"),
            client.post(CHURN, [customer], format="json", headers={"Idempotency-Key": "mine"}),
            client.generic("POST", CHURN, table, content_type="text/csv"),
            client.post(CHURN, customer, format="multipart"),  # the form of the browsable API
        ):
            assert (answered.status_code, answered.json()["version"]) == (200, number)
        answer = asked_on_the_fast_path(client, CHURN, customer)
        assert answer is not None and answer["version"] == number
        assert client.post("/predict", customer, format="json").status_code == 200
        assert asked_on_the_fast_path(client, "/predict", customer) is not None
        newest = Prediction.objects.order_by("-id")[: Prediction.objects.count() - before]
        assert [row.version.number for row in newest] == [number] * 7
        for other in (1, 2):  # asked for by its number, every version answers everybody
            asked = client.post(
                f"/api/v1/models/churn/versions/{other}/predictions/", customer, format="json"
            )
            assert asked.json()["version"] == other


def test_a_user_has_one_arm_in_the_browser_too(candidate: ModelVersion, customer: dict[str, Any]) -> None:
    begin(candidate, "canary", 50.0)
    versions = set()
    for number in range(12):
        person = User.objects.create_superuser(f"person{number}")
        inside = canary_assignment.is_in(candidate.pk, person.pk, canary_assignment.threshold(50.0))
        browser = APIClient()
        browser.force_login(person)
        version = browser.post(CHURN, customer, format="multipart").json()["version"]
        assert version == (2 if inside else 1)
        assert keyed(person).post(CHURN, customer, format="json").json()["version"] == version
        versions.add(version)
    assert versions == {1, 2}


@pytest.mark.parametrize("change", ["stop", "activate", "raise"])
def test_an_answer_during_a_change_of_the_canary_follows_the_change(
    candidate: ModelVersion, customer: dict[str, Any], change: str
) -> None:
    """The answer was computed before the change commits; the fence sends it back."""
    third = train_sample("churn", rows=600, activate=False)
    canary = begin(candidate, "canary", 50.0)
    inside, outside = both_sides(candidate, 50.0)
    client, before, after = inside, 2, 1
    changes: dict[str, Any] = {
        "stop": lambda: rollouts.stop(canary, by=None, reason="now"),
        "activate": lambda: activation.activate(third, by=None, reason="now", override=True),
        "raise": lambda: rollouts.raise_percent(canary, percent=100.0, by=None, reason="now"),
    }
    if change == "activate":
        after = 3
    if change == "raise":
        client, before, after = outside, 1, 2
    assert client.post(CHURN, customer, format="json").json()["version"] == before
    answer = at_its_commit(changes[change], lambda: client.post(CHURN, customer, format="json").json())
    assert answer["version"] == after
    assert Prediction.objects.order_by("-id")[0].version.number == after
    assert Prediction.objects.count() == 2


def test_a_canary_that_cannot_be_loaded_fails_no_client_and_is_counted(
    candidate: ModelVersion, customer: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    canary = begin(candidate, "canary", 50.0)
    inside, _ = both_sides(candidate, 50.0)
    with missing_from_store(candidate):
        assert inside.post(CHURN, customer, format="json").json()["version"] == 1
        assert inside.post(CHURN, [customer] * 2, format="json").json()["version"] == 1
        # The fast path knows it, too, and does not send each request the long way.
        answer = asked_on_the_fast_path(inside, CHURN, customer)
        assert answer is not None and answer["version"] == 1
    assert caplog.text.count("the canary of churn cannot be loaded") == 1
    settled()
    assert tallied(canary) == (0, 0, 4)
    routing.forget()  # the while is over
    assert inside.post(CHURN, customer, format="json").json()["version"] == 2


def test_an_unreachable_store_fails_no_client_of_a_canary(
    candidate: ModelVersion, customer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(candidate, "canary", 50.0)
    inside, _ = both_sides(candidate, 50.0)
    engine_cache.forget()
    assert engine_cache.ready(ModelVersion.objects.get(number=1).pk)

    def away(version: ModelVersion) -> Any:
        raise ConnectionError("the store does not answer")

    monkeypatch.setattr(artifacts, "load", away)
    assert inside.post(CHURN, customer, format="json").json()["version"] == 1


# -- shadow --------------------------------------------------------------------------------------------


def rows_of(customer: dict[str, Any], number: int) -> list[dict[str, Any]]:
    return [{**customer, "tenure": n % 70, "monthlycharges": 20.0 + n % 90} for n in range(number)]


def test_a_shadows_answers_equal_its_direct_answers(
    candidate: ModelVersion, api: APIClient, customer: dict[str, Any]
) -> None:
    rollout = begin(candidate)
    rows = rows_of(customer, 40)
    answered = api.post(CHURN, rows, format="json").json()
    assert answered["version"] == 1
    single = api.post(CHURN, customer, format="json").json()
    settled()
    direct = api.post("/api/v1/models/churn/versions/2/predictions/", [*rows, customer], format="json").json()
    shadowed = {str(row.prediction_id): row for row in ShadowAnswer.objects.filter(rollout=rollout)}
    ids = [p["id"] for p in answered["predictions"] + single["predictions"]]
    assert set(shadowed) == set(ids)
    for identifier, expected in zip(ids, direct["predictions"], strict=True):
        row = shadowed[identifier]
        assert (row.prediction, row.probability) == (expected["prediction"], expected["probability"])
    assert any(shadowed[p["id"]].probability != p["probability"] for p in answered["predictions"]), (
        "both versions answer the same: this test shows nothing"
    )
    assert tallied(rollout) == (41, 0, 0)


def test_a_shadow_predicts_only_new_answers_of_the_active_version(
    candidate: ModelVersion, customer: dict[str, Any]
) -> None:
    begin(candidate)
    begin(candidate, "canary", 50.0)
    inside, outside = both_sides(candidate, 50.0)
    inside.post(CHURN, customer, format="json")
    outside.post("/api/v1/models/churn/versions/1/predictions/", customer, format="json")
    for _ in range(2):
        repeated = outside.post(CHURN, customer, format="json", headers={"Idempotency-Key": "once"})
        assert repeated.status_code == 200
    outside.post(CHURN, {"tenure": 1}, format="json")
    settled()
    assert [str(row.prediction_id) for row in ShadowAnswer.objects.all()] == [
        repeated.json()["predictions"][0]["id"]
    ]


def test_a_shadow_served_by_scikit_learn_predicts_too(
    candidate: ModelVersion, api: APIClient, customer: dict[str, Any]
) -> None:
    plain = train_sample("churn", rows=900, activate=False, engine="sklearn")
    rollout = begin(plain)
    answered = api.post(CHURN, rows_of(customer, 3), format="json").json()
    settled()
    direct = api.post("/api/v1/models/churn/versions/3/predictions/", rows_of(customer, 3), format="json")
    shadowed = {str(row.prediction_id): row.probability for row in ShadowAnswer.objects.all()}
    expected = [p["probability"] for p in direct.json()["predictions"]]
    assert [shadowed[p["id"]] for p in answered["predictions"]] == expected
    assert tallied(rollout) == (3, 0, 0)


def test_the_fast_path_queues_rows_for_the_shadow(
    candidate: ModelVersion, api: APIClient, customer: dict[str, Any]
) -> None:
    rollout = begin(candidate)
    api.post(CHURN, customer, format="json")
    body = asked_on_the_fast_path(api, CHURN, rows_of(customer, 5))
    settled()
    assert body is not None
    ids = {uuid.UUID(p["id"]) for p in body["predictions"]}
    assert ids < set(ShadowAnswer.objects.values_list("prediction_id", flat=True))
    assert tallied(rollout) == (6, 0, 0)


def test_a_full_queue_drops_and_counts(
    candidate: ModelVersion, api: APIClient, customer: dict[str, Any], settings: Any
) -> None:
    settings.SHADOW_QUEUE_ROWS = 10
    rollout = begin(candidate)
    assert len(api.post(CHURN, rows_of(customer, 30), format="json").json()["predictions"]) == 30
    settled()
    assert tallied(rollout) == (10, 20, 0)
    assert ShadowAnswer.objects.count() == 10


def test_rows_that_waited_too_long_are_dropped_and_counted(
    candidate: ModelVersion, api: APIClient, customer: dict[str, Any], settings: Any
) -> None:
    settings.SHADOW_LAG_SECONDS = 0
    rollout = begin(candidate)
    api.post(CHURN, rows_of(customer, 3), format="json")
    settled()
    assert tallied(rollout) == (0, 3, 0)


def test_a_failing_shadow_fails_no_request(
    candidate: ModelVersion, api: APIClient, customer: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    rollout = begin(candidate)
    with missing_from_store(candidate):
        for _ in range(3):
            answered = api.post(CHURN, rows_of(customer, 4), format="json")
            assert answered.status_code == 200 and answered.json()["version"] == 1
            settled()
    assert tallied(rollout) == (0, 0, 12)
    assert caplog.text.count(f"the shadow of rollout {rollout.pk} failed") == 1
    assert Prediction.objects.count() == 12


def test_a_row_that_a_shadow_cannot_answer_does_not_fail_other_rows(churn: ModelVersion) -> None:
    served = engine_cache.ready(churn.pk)
    names = served.schema.names
    row = tuple(served.schema.example[name] for name in names)
    bad = tuple("much" if name == "monthlycharges" else cell for name, cell in zip(names, row, strict=True))
    ids = [f"id-{number}".encode() for number in range(7)]
    waiting = shadow_worker.Waiting(
        routing.Shadow(1, churn.pk), names, [row, row, row, row, bad, row, row], ids, time.monotonic(), True
    )
    answers = shadow_worker.ShadowWorker(100, 5)._predict([waiting])
    cells = [line.split(b"\t") for line in answers]
    assert [identifier.decode() for _, identifier, *_ in cells] == [f"id-{n}" for n in (0, 1, 2, 3, 5, 6)]
    assert len({(answer, probability) for _, _, answer, probability, _ in cells}) == 1


def test_a_shadow_with_another_column_order_gets_the_same_rows(churn: ModelVersion) -> None:
    served = engine_cache.ready(churn.pk)
    names = tuple(reversed(served.schema.names))
    example = served.schema.example
    shadow = routing.Shadow(1, churn.pk)
    worker = shadow_worker.ShadowWorker(100, 5)
    ours, theirs = (
        worker._predict(
            [shadow_worker.Waiting(shadow, order, [tuple(example[n] for n in order)], [b"id"], 0.0, True)]
        )
        for order in (served.schema.names, names)
    )
    assert ours == theirs and len(ours) == 1


def test_the_shadow_continues_after_the_database_was_unreachable(
    candidate: ModelVersion, api: APIClient, customer: dict[str, Any]
) -> None:
    rollout = begin(candidate)
    api.post(CHURN, customer, format="json")
    settled()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = %s "
            "AND datname = current_database()",
            ["vigia shadow"],
        )
        assert cursor.fetchone()[0] == 1
    for _ in range(2):
        assert api.post(CHURN, customer, format="json").status_code == 200
        settled()
    assert tallied(rollout) == (2, 0, 1)


def test_queued_rows_are_predicted_before_the_process_ends(
    candidate: ModelVersion, api: APIClient, customer: dict[str, Any]
) -> None:
    rollout = begin(candidate)
    api.post(CHURN, rows_of(customer, 600), format="json")
    shadow_worker.close()
    assert tallied(rollout) == (600, 0, 0)


def test_shadow_answers_are_removed_with_the_log(
    candidate: ModelVersion, api: APIClient, customer: dict[str, Any]
) -> None:
    rollout = begin(candidate)
    api.post(CHURN, customer, format="json")
    time.sleep(0.01)
    second = api.post(CHURN, customer, format="json").json()["predictions"][0]["id"]
    settled()
    assert shadow_retention.follow_the_log() == 0
    assert shadow_retention.forget(time_of(uuid.UUID(second))) == 1
    assert str(ShadowAnswer.objects.get().prediction_id) == second
    assert tallied(rollout) == (2, 0, 0)
