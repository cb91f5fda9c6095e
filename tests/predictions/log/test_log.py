"""The log: append-only, partitioned, queried by index; retrying is safe."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection, connections, transaction
from django.db.utils import IntegrityError
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.test import APIClient

from core.uuid7 import lowest_at, time_of
from predictions import tasks
from predictions.log import partitions, writer
from predictions.log.csv_export import neutral
from predictions.models import Prediction
from tests.conftest import Post, assert_error, at_once, keyed, new_ids
from training.models import GroupScope, IdempotencyKey, ModelVersion, RegisteredModel

CHURN = "/api/v1/models/churn/predictions/"


# -- ids -----------------------------------------------------------------------------------------------


@given(st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(9000, 1, 1), timezones=st.just(dt.UTC)))
def test_a_range_of_time_is_a_range_of_ids(moment: dt.datetime) -> None:
    bound = lowest_at(moment)
    assert time_of(bound) >= moment
    assert time_of(uuid.UUID(int=bound.int - 1)) < moment


def test_new_ids_ascend_and_carry_the_time() -> None:
    ids = new_ids(1000)
    assert ids == sorted(set(ids))
    assert abs((time_of(ids[0]) - timezone.now()).total_seconds()) < 2
    assert all(identifier.version == 7 for identifier in ids)


# -- append-only ---------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE predictions_prediction SET probability = 1",
        "DELETE FROM predictions_prediction",
        "UPDATE training_activation SET reason = 'another'",
        "DELETE FROM training_activation",
    ],
)
def test_the_database_refuses_to_rewrite_the_past(
    churn: ModelVersion, post: Post, customer: dict[str, Any], statement: str
) -> None:
    post(CHURN, customer)
    with (
        pytest.raises(IntegrityError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
    assert Prediction.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_truncate_is_refused_too_outside_the_test_suite(churn: ModelVersion) -> None:
    with (
        pytest.raises(IntegrityError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute("SET LOCAL vigia.maintenance = ''")
        cursor.execute("TRUNCATE predictions_prediction")


# -- partitions ----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_row_without_a_partition_is_kept_and_moved_when_its_partition_is_created(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    post(CHURN, [customer] * 3)
    assert in_table("predictions_prediction_default") == 3
    now = timezone.now()
    created = partitions.ensure(now, ahead=2)
    assert len(created) == 3
    assert in_table(f"predictions_prediction_{now:%Y_%m}") == 3
    assert in_table("predictions_prediction_default") == 0
    assert Prediction.objects.count() == 3
    post(CHURN, customer)
    assert in_table(f"predictions_prediction_{now:%Y_%m}") == 4
    assert partitions.ensure(now, ahead=2) == [], "a second call creates nothing"
    with (
        pytest.raises(IntegrityError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(f"DELETE FROM predictions_prediction_{now:%Y_%m}")


@pytest.mark.django_db(transaction=True)
def test_the_beat_task_creates_partitions(settings: Any) -> None:
    settings.PARTITIONS_AHEAD = 1
    assert len(tasks.make_partitions()) == 2


def test_months_follow_each_other_over_the_year() -> None:
    december = partitions.Month(2026, 12)
    assert december.next == partitions.Month(2027, 1)
    assert partitions.Month(2027, 1).start == dt.datetime(2027, 1, 1, tzinfo=dt.UTC)


def in_table(name: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {name}")
        return int(cursor.fetchone()[0])


# -- queries -------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_pages_go_through_the_log_newest_first_without_gap_or_repeat(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any]
) -> None:
    ids = [given["id"] for given in post(CHURN, [customer] * 25).json()["predictions"]]
    seen: list[str] = []
    url: str | None = f"{CHURN}?limit=10"
    while url:
        page = api.get(url).json()
        seen += [row["id"] for row in page["predictions"]]
        url = page["next"]
    assert seen == ids[::-1]


@pytest.mark.django_db(transaction=True)
def test_the_log_is_filtered_by_time_and_version(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any]
) -> None:
    before = timezone.now() - dt.timedelta(seconds=1)
    post(CHURN, customer)
    later = timezone.now() + dt.timedelta(seconds=1)

    def count(**query: Any) -> int:
        return len(api.get(CHURN, query).json()["predictions"])

    assert count(since=before.isoformat()) == 1
    assert count(until=before.isoformat()) == 0
    assert count(since=later.isoformat()) == 0
    assert count(since=f"{before:%Y-%m-%d}") == 1
    assert count(version=1) == 1
    assert count(version=2) == 0


@pytest.mark.django_db(transaction=True)
def test_a_log_row_has_its_lineage(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any]
) -> None:
    [given] = post(CHURN, customer).json()["predictions"]
    row = api.get(f"/api/v1/predictions/{given['id']}/").json()
    assert row["inputs"]["tenure"] == 1
    assert row["client"] == "tester"
    lineage = row["lineage"]
    assert lineage["dataset_sha256"] == churn.dataset.sha256
    assert lineage["schema_sha256"] == churn.schema_sha256
    assert lineage["libraries"]["scikit-learn"]
    assert lineage["seed"] == churn.seed
    assert lineage["activation"]["reason"] == "a test needs it"
    assert_error(api.get(f"/api/v1/predictions/{uuid.uuid4()}/"), 404, "not_found")
    assert_error(api.get("/api/v1/predictions/nonsense/"), 404, "not_found")


@pytest.mark.django_db(transaction=True)
def test_log_queries_use_the_indexes(churn: ModelVersion, post: Post, customer: dict[str, Any]) -> None:
    from predictions.log import queries

    post(CHURN, [{**customer, "_key": f"k{n}"} for n in range(50)])
    model = churn.registered_model
    cases = [
        Prediction.objects.filter(registered_model=model).order_by("-id")[:10],
        Prediction.objects.filter(registered_model=model, key="k7").order_by("-id")[:10],
        Prediction.objects.filter(version=churn).order_by("-id")[:10],
    ]
    assert next(iter(queries.page(model, queries.LogQuery(key="k7")))).key == "k7"
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        for rows in cases:
            plan = rows.explain()
            assert "Index" in plan, plan
            assert "Seq Scan on predictions" not in plan, plan


# -- rights --------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_key_can_use_only_its_rights(churn: ModelVersion, post: Post, customer: dict[str, Any]) -> None:
    from django.contrib.auth.models import Group

    [given_id] = [p["id"] for p in post(CHURN, customer).json()["predictions"]]
    cars = RegisteredModel.objects.get(name="cars")
    group = Group.objects.create(name="callers")
    group.permissions.add(Permission.objects.get(codename="predict"))
    caller = User.objects.create(username="caller")
    assert_error(keyed(caller).get("/api/v1/models/churn/"), 403, "forbidden")
    caller.groups.add(group)
    client = keyed(caller)
    assert client.post(CHURN, customer, format="json").status_code == 200
    assert_error(client.get(CHURN), 403, "forbidden")
    assert_error(client.get(f"/api/v1/predictions/{given_id}/"), 404, "not_found")
    assert_error(
        client.post("/api/v1/models/churn/rollback/", {"reason": "x"}, format="json"), 403, "forbidden"
    )
    assert_error(
        client.post("/api/v1/models/churn/training-runs/", {"instances": []}, format="json"), 403, "forbidden"
    )
    scope = GroupScope.objects.create(group=group)
    scope.registered_models.add(cars)
    assert_error(client.post(CHURN, customer, format="json"), 403, "forbidden")
    assert [row["name"] for row in client.get("/api/v1/models/").json()] == ["cars"]
    scope.registered_models.add(churn.registered_model)
    assert client.post(CHURN, customer, format="json").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_a_revoked_and_an_expired_key_are_refused(churn: ModelVersion, client_user: User) -> None:
    from knox.models import AuthToken

    client = keyed(client_user)
    assert client.get(CHURN).status_code == 200
    AuthToken.objects.update(expiry=timezone.now() - dt.timedelta(seconds=1))
    assert_error(client.get(CHURN), 401, "bad_key")
    other = keyed(client_user)
    AuthToken.objects.all().delete()
    assert_error(other.get(CHURN), 401, "bad_key")


@pytest.mark.django_db(transaction=True)
def test_three_spellings_of_the_header_carry_a_key(churn: ModelVersion, client_user: User) -> None:
    import base64

    from training.access import client_keys

    key = client_keys.issue(client_user, days=1)
    basic = base64.b64encode(f"anybody:{key}".encode()).decode()
    for header in (f"Token {key}", f"Bearer {key}", f"bearer {key}", f"Basic {basic}"):
        assert APIClient().get(CHURN, headers={"Authorization": header}).status_code == 200


# -- idempotency ---------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_same_key_and_body_give_the_stored_answer(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    first = post(CHURN, customer, **{"Idempotency-Key": "abc"})
    again = post(CHURN, customer, **{"Idempotency-Key": "abc"})
    assert first.json() == again.json()
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert Prediction.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_the_same_key_with_another_body_is_409(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    post(CHURN, customer, **{"Idempotency-Key": "abc"})
    other = post(CHURN, {**customer, "tenure": 2}, **{"Idempotency-Key": "abc"})
    assert_error(other, 409, "idempotency_key_reused")
    elsewhere = post("/api/v1/models/churn/versions/1/predictions/", customer, **{"Idempotency-Key": "abc"})
    assert_error(elsewhere, 409, "idempotency_key_reused")
    assert Prediction.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_idempotency_keys_belong_to_a_client_and_expire(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    from training.access import client_keys

    post(CHURN, customer, **{"Idempotency-Key": "abc"})
    other = keyed(client_keys.client_with_every_right("other"))
    answered = other.post(CHURN, {**customer, "tenure": 9}, format="json", headers={"Idempotency-Key": "abc"})
    assert answered.status_code == 200
    IdempotencyKey.objects.update(created_at=timezone.now() - dt.timedelta(hours=25))
    fresh = post(CHURN, {**customer, "tenure": 3}, **{"Idempotency-Key": "abc"})
    assert fresh.status_code == 200
    assert Prediction.objects.count() == 3
    IdempotencyKey.objects.update(created_at=timezone.now() - dt.timedelta(hours=25))
    assert tasks.forget_idempotency_keys() == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("key", ["", "k" * 201, "tab\there", "ñ"])
def test_a_bad_idempotency_key_is_refused(
    churn: ModelVersion, post: Post, customer: dict[str, Any], key: str
) -> None:
    assert_error(post(CHURN, customer, **{"Idempotency-Key": key}), 400, "bad_idempotency_key")


@pytest.mark.django_db(transaction=True)
def test_concurrent_duplicates_are_answered_once(
    churn: ModelVersion, client_user: User, customer: dict[str, Any]
) -> None:
    from training.access import client_keys

    key = client_keys.issue(client_user)
    answers: list[bytes] = []

    def ask() -> None:
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Token {key}")
        asked = client.post(CHURN, customer, format="json", headers={"Idempotency-Key": "same"})
        answers.append(asked.content)

    at_once(*[ask] * 8)
    assert len(answers) == 8
    assert len({json.dumps(json.loads(answer), sort_keys=True) for answer in answers}) == 1
    assert Prediction.objects.count() == 1


# -- not logged, not answered --------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_request_that_cannot_be_logged_gets_no_answer(
    churn: ModelVersion, post: Post, customer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another session locks the log's table: the request ends in 503, with nothing written."""
    options = connection.settings_dict["OPTIONS"]
    monkeypatch.setitem(options, "options", f"{options['options']} -c lock_timeout=300")
    writer.renew()  # the writer's next connection has that time limit
    blocker = connections.create_connection("default")
    try:
        with blocker.cursor() as cursor:
            blocker.set_autocommit(False)
            cursor.execute("LOCK TABLE predictions_prediction IN EXCLUSIVE MODE")
            refused = post(CHURN, customer)
            assert_error(refused, 503, "log_unavailable")
            assert refused.headers["Retry-After"]
            blocker.rollback()
    finally:
        blocker.close()
    assert not Prediction.objects.exists()
    assert post(CHURN, customer).status_code == 200
    writer.renew()


def test_cells_that_begin_like_formulas_are_neutralised() -> None:
    assert [neutral(cell) for cell in ("=1", "+1", "-1", "@x", "\tx", "a=1", -5, 1.5, None)] == [
        "'=1", "'+1", "'-1", "'@x", "'\tx", "a=1", -5, 1.5, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "before",
    ["", " ", "\t", "\r", "\n", "\x0b", "\x00", "\x7f", "\x85", "\u00a0", "\u00ad", "\u034f", "\u115f",
     "\u180e", "\u2003", "\u2028", "\u200b", "\u200e", "\u202e", "\u2060", "\u2800", "\u3000", "\u3164",
     "\ufe0f", "\ufeff", "\U000e0020", "\ue000", " \ufeff\t\u200b "],
    ids=ascii,
)  # fmt: skip
def test_invisible_characters_before_a_formula_do_not_hide_it(before: str) -> None:
    for sign in "=+-@＝＋－＠﹦﹢﹣﹫⁼⁺⁻₌₊₋−":
        assert neutral(f"{before}{sign}1") == f"'{before}{sign}1", ascii(sign)
    assert neutral(f"{before}a=1") in (f"{before}a=1", f"'{before}a=1")


def test_text_and_numbers_stay_as_they_are() -> None:
    for cell in ("a", " a-1", "1-2", "–", "", " ", "\u00a0", "ñ=1", "'=1", -5, -1.5, -0.0, None, True):
        assert neutral(cell) is cell
