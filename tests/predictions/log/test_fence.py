"""Changes and answers at the fence: after a change is committed, no answer uses the state before it."""

from __future__ import annotations

import datetime as dt
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection, connections, transaction
from django.utils import timezone
from knox.models import AuthToken
from rest_framework.test import APIClient

from core.uuid7 import log_ids, lowest_at, time_of
from predictions.models import Prediction
from tests.conftest import assert_error, keyed
from tests.trained import train_sample
from training.access import client_keys
from training.models import Activation, GroupScope, ModelVersion, RegisteredModel
from training.registry import activation
from training.serving import routing

CHURN = "/api/v1/models/churn/predictions/"
pytestmark = pytest.mark.django_db(transaction=True)


def in_thread(work: Callable[[], None]) -> threading.Thread:
    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def stands_at_the_fence() -> None:
    """Returns once a session waits for an advisory lock, which only the log's writer does."""
    until = time.monotonic() + 20
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            if cursor.fetchone()[0]:
                return
            assert time.monotonic() < until, "no session came to the fence"
            time.sleep(0.02)


def at_its_commit(change: Callable[[], object], meanwhile: Callable[[], Any]) -> Any:
    """Runs `change` up to its commit, lets `meanwhile` wait at the fence, then commits.

    Returns the result of `meanwhile`.
    """
    came: list[Any] = []
    with transaction.atomic():
        change()
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # the first step of COMMIT
        thread = in_thread(lambda: came.append(meanwhile()))
        stands_at_the_fence()
    thread.join()
    return came[0]


@pytest.fixture
def versions(db: None) -> tuple[ModelVersion, ModelVersion]:
    first = train_sample("churn", rows=600)
    return first, train_sample("churn", rows=600, activate=False)


@pytest.fixture
def client(client_user: User) -> APIClient:
    return keyed(client_user)


def test_an_answer_during_an_activation_is_from_the_new_version(
    versions: tuple[ModelVersion, ModelVersion], client: APIClient, customer: dict[str, Any]
) -> None:
    answer = at_its_commit(
        lambda: activation.activate(versions[1], by=None, reason="now"),
        lambda: client.post(CHURN, customer, format="json").json(),
    )
    assert answer["version"] == 2
    assert Prediction.objects.get().version == versions[1]


def test_an_answer_during_a_rollback_is_from_the_restored_version(
    versions: tuple[ModelVersion, ModelVersion], client: APIClient, customer: dict[str, Any]
) -> None:
    activation.activate(versions[1], by=None, reason="first")
    answer = at_its_commit(
        lambda: activation.rollback(versions[0].registered_model, by=None, reason="back"),
        lambda: client.post(CHURN, customer, format="json").json(),
    )
    assert answer["version"] == 1
    assert Prediction.objects.get().version == versions[0]


def revoke(client: User) -> None:
    AuthToken.objects.filter(user=client).delete()


def expire(client: User) -> None:
    AuthToken.objects.filter(user=client).update(expiry=timezone.now() - dt.timedelta(seconds=1))


def deactivate(client: User) -> None:
    client.is_active = False
    client.save()


def take_the_right(client: User) -> None:
    client.user_permissions.clear()


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        (revoke, 401, "bad_key"),
        (expire, 401, "bad_key"),
        (deactivate, 401, "bad_key"),
        (take_the_right, 403, "forbidden"),
    ],
)
def test_a_key_or_right_revoked_during_a_request_gets_no_answer(
    churn: ModelVersion,
    client_user: User,
    client: APIClient,
    customer: dict[str, Any],
    change: Callable[[User], None],
    status: int,
    code: str,
) -> None:
    assert client.post(CHURN, customer, format="json").status_code == 200
    refused = at_its_commit(lambda: change(client_user), lambda: client.post(CHURN, customer, format="json"))
    assert_error(refused, status, code)
    assert Prediction.objects.count() == 1


def test_a_user_deactivated_during_a_request_gets_no_answer(
    churn: ModelVersion, customer: dict[str, Any]
) -> None:
    """A session instead of a key: the user was loaded before the change."""
    person = User.objects.create_superuser("boss")
    browser = APIClient()
    browser.force_login(person)
    assert browser.post(CHURN, customer, format="json").status_code == 200

    def demote() -> None:
        User.objects.filter(pk=person.pk).update(is_active=False, is_superuser=False)

    refused = at_its_commit(demote, lambda: browser.post(CHURN, customer, format="json"))
    assert refused.status_code == 401
    assert Prediction.objects.count() == 1


def test_answers_wait_only_for_the_commit_of_a_change(
    versions: tuple[ModelVersion, ModelVersion], client: APIClient, customer: dict[str, Any]
) -> None:
    """An activation that is prepared and holds its row locks delays no answer."""
    with transaction.atomic():
        activation.activate(versions[1], by=None, reason="in a moment")
        RegisteredModel.objects.select_for_update(no_key=True).get(name="churn")
        answers: list[dict[str, Any]] = []
        request = in_thread(lambda: answers.append(client.post(CHURN, customer, format="json").json()))
        request.join(timeout=20)
        assert [answer["version"] for answer in answers] == [1]


def test_under_constant_activations_every_row_is_from_the_version_active_at_its_commit(
    versions: tuple[ModelVersion, ModelVersion], client_user: User, customer: dict[str, Any]
) -> None:
    stop = threading.Event()
    key = client_keys.issue(client_user)
    answers: list[tuple[int, float, float]] = []

    def ask() -> None:
        asker = APIClient()
        asker.credentials(HTTP_AUTHORIZATION=f"Token {key}")
        while not stop.is_set():
            start = time.monotonic()
            answer = asker.post(CHURN, customer, format="json")
            assert answer.status_code == 200, answer.content
            answers.append((answer.json()["version"], start, time.monotonic()))

    askers = [in_thread(ask) for _ in range(3)]
    # (version, earliest moment it could be live, latest moment the one before it could be)
    switches = [(1, 0.0, 0.0)]
    for turn in range(20):
        number = (turn + 1) % 2 + 1
        before = time.monotonic()
        activation.activate(versions[number - 1], by=None, reason=f"turn {turn}")
        switches.append((number, before, time.monotonic()))
        time.sleep(0.02)
    stop.set()
    for asker in askers:
        asker.join()
    assert len(answers) > 20
    ends = [after for _, _, after in switches[1:]] + [float("inf")]
    for version, start, end in answers:
        live = {
            n for (n, since, _), until in zip(switches, ends, strict=True) if since <= end and until >= start
        }
        assert version in live, (version, start, end, switches)
    assert Activation.objects.count() == 21
    model = versions[0].registered_model
    for row in Prediction.objects.all():
        active = activation.active_at(model, row.at)
        assert active is not None
        assert active.version_id == row.version_id, "the row's time identifies the version that answered"
    logged = Prediction.objects.order_by("id").values_list("version__number", flat=True)
    assert sorted(logged) == sorted(version for version, _, _ in answers)


def test_a_request_succeeds_although_changes_keep_overtaking_it(
    churn: ModelVersion, client: APIClient, customer: dict[str, Any]
) -> None:
    """A change comes every few milliseconds, and each attempt of the request takes longer."""
    stop = threading.Event()
    group = Group.objects.create(name="restless")
    right = Permission.objects.get(codename="predict")
    before = routing.generation()

    def change() -> None:
        while not stop.is_set():
            group.permissions.add(right)
            group.permissions.remove(right)

    restless = in_thread(change)
    try:
        answered = client.post(CHURN, [customer] * 4_000, format="json")
    finally:
        stop.set()
        restless.join()
    assert answered.status_code == 200
    assert Prediction.objects.count() == 4_000
    assert routing.generation() > before + 3, "no change came meanwhile, so the test proves nothing"


def test_the_time_of_an_activation_separates_the_rows_of_two_versions(
    versions: tuple[ModelVersion, ModelVersion], client: APIClient, customer: dict[str, Any]
) -> None:
    """The old version answers until the commit, although the activating statement ran earlier."""
    model = versions[0].registered_model

    def ask() -> None:
        request = in_thread(lambda: client.post(CHURN, customer, format="json"))
        request.join(timeout=20)

    for turn in range(4):
        with transaction.atomic():
            done = activation.activate(versions[(turn + 1) % 2], by=None, reason=f"turn {turn}")
            ask()
        assert done.at == Activation.objects.get(pk=done.pk).at, "the returned time equals the stored one"
        ask()
    listed = client.get(CHURN).json()["predictions"]
    assert [row["version"] for row in reversed(listed)] == [1, 2, 2, 1, 1, 2, 2, 1]
    for row in listed:
        active = client.get("/api/v1/models/churn/active/", {"at": row["at"]}).json()
        assert active["version"] == row["version"], (row["at"], active)
        assert activation.active_at(model, dt.datetime.fromisoformat(row["at"])) is not None
    now = client.get("/api/v1/models/churn/active/").json()
    assert now["version"] == 1


@pytest.mark.parametrize("ahead", [30, 0, -30], ids=lambda seconds: f"{seconds} s ahead")
def test_the_time_of_an_activation_separates_rows_even_if_clocks_differ(
    versions: tuple[ModelVersion, ModelVersion], client: APIClient, customer: dict[str, Any], ahead: int
) -> None:
    """A row from a clock that is ahead still precedes the next activation, and a row from a clock that is
    behind does not precede the previous one."""
    model = versions[0].registered_model
    made = client.post(CHURN, customer, format="json").json()["predictions"][0]
    with connection.cursor() as cursor:
        cursor.execute("SET vigia.maintenance = 'move'")
        cursor.execute(
            "WITH moved AS (DELETE FROM predictions_prediction WHERE id = %s RETURNING *) "
            "INSERT INTO predictions_prediction SELECT (jsonb_populate_record("
            "  NULL::predictions_prediction, to_jsonb(moved) || jsonb_build_object('id', %s::text))).* "
            "FROM moved",
            [made["id"], str(lowest_at(timezone.now() + dt.timedelta(seconds=ahead)))],
        )
        cursor.execute("RESET vigia.maintenance")
    activation.activate(versions[1], by=None, reason="after it")
    generation = routing.generation()
    later = log_ids(3, generation)
    assert client.post(CHURN, customer, format="json").json()["version"] == 2
    for row in Prediction.objects.all():
        active = activation.active_at(model, row.at)
        if row.version == versions[1] or ahead >= 0:
            assert active is not None
            assert active.version == row.version, row.at
    last = Activation.objects.latest()
    assert all(time_of(uuid.UUID(each.decode())) >= last.at for each in later)
    assert later == sorted(later)
    assert last.at.microsecond % 1000 == 0


# -- changes of the generation -------------------------------------------------------------------------


def grows(change: Callable[[], object]) -> bool:
    before = routing.generation()
    change()
    after = routing.generation()
    assert after >= before
    return after > before


def test_every_change_that_affects_answers_raises_the_generation(
    versions: tuple[ModelVersion, ModelVersion], client_user: User
) -> None:
    model = versions[0].registered_model
    group = Group.objects.create(name="callers")
    right = Permission.objects.get(codename="predict")
    client_keys.issue(client_user)
    for change in (
        lambda: activation.activate(versions[1], by=None, reason="grow"),
        lambda: activation.rollback(model, by=None, reason="grow"),
        lambda: group.permissions.add(right),
        lambda: client_user.groups.add(group),
        lambda: GroupScope.objects.create(group=group),
        lambda: group.scope.registered_models.add(model),
        lambda: group.scope.registered_models.remove(model),
        lambda: client_user.groups.remove(group),
        client_user.user_permissions.clear,
        lambda: expire(client_user),
        lambda: revoke(client_user),
        lambda: User.objects.filter(pk=client_user.pk).update(is_active=False),
        client_user.delete,
    ):
        assert grows(change)


def test_a_bulk_change_of_many_keys_raises_the_generation_once_and_fast(client_user: User) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO knox_authtoken (digest, token_key, created, user_id) "
            "SELECT md5(n::text), 'k', now(), %s FROM generate_series(1, 5000) n",
            [client_user.pk],
        )
    started = time.monotonic()

    def updates() -> int:
        cursor.execute("SELECT n_tup_upd FROM pg_stat_xact_user_tables WHERE relname = 'training_generation'")
        return int(cursor.fetchone()[0])

    with transaction.atomic(), connection.cursor() as cursor:
        before = updates()
        revoke(client_user)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        assert updates() == before + 1
    assert time.monotonic() - started < 10


def test_emptying_a_table_or_editing_permissions_raises_the_generation(client_user: User) -> None:
    client_keys.issue(client_user)

    def empty() -> None:
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE knox_authtoken")

    assert grows(empty)
    right = Permission.objects.get(codename="predict")
    assert grows(lambda: Permission.objects.filter(pk=right.pk).update(codename="foresee"))
    assert grows(lambda: Permission.objects.filter(pk=right.pk).update(codename="predict"))


def test_no_generation_repeats_after_a_restored_backup(client_user: User) -> None:
    """Processes may still cache the state of a value that the restored database has not reached yet."""
    client_keys.issue(client_user)
    revoke(client_user)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE training_generation SET value = 7")
    client_keys.issue(client_user)
    before = time.time()
    revoke(client_user)
    assert routing.generation() >= before * 1e6 - 60e6


def test_changes_that_affect_no_answer_keep_the_generation(churn: ModelVersion, client_user: User) -> None:
    for change in (
        lambda: client_keys.issue(client_user),
        lambda: User.objects.create(username="somebody"),
        lambda: User.objects.filter(pk=client_user.pk).update(last_login=timezone.now()),
        lambda: train_sample("churn", rows=600, activate=False),
        lambda: RegisteredModel.objects.filter(name="churn").update(policy="always"),
    ):
        assert not grows(change)


def test_a_change_that_is_rolled_back_keeps_the_generation(client_user: User) -> None:
    client_keys.issue(client_user)

    def undone() -> None:
        with pytest.raises(RuntimeError), transaction.atomic():
            revoke(client_user)
            raise RuntimeError

    assert not grows(undone)
    assert AuthToken.objects.count() == 1
