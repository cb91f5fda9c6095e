"""What users did with movies, told by requests: recorded once however often it is told, never rewritten."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from rest_framework.test import APIClient

from recommender.interactions import recording
from recommender.models import Interaction
from tests.conftest import Post, assert_error, at_once, keyed
from training.models import RegisteredModel

pytestmark = pytest.mark.django_db
ADDRESS = "/api/v1/interactions/"
WHEN = "2026-11-01T12:00:00Z"


def told(movie_id: int = 1, kind: str = "liked", user: str = "u-1", **more: Any) -> dict[str, Any]:
    return {"user": user, "movie_id": movie_id, "kind": kind} | more


def counts(answer: Any) -> tuple[int, int, int]:
    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert body["model"] == "movies"
    return body["received"], body["recorded"], body["repeated"]


def test_interactions_are_recorded_and_repeating_them_is_harmless(
    catalogue: RegisteredModel, post: Post, client_user: User
) -> None:
    rows = [told(at=WHEN), told(2, "watched", at=WHEN), told(2, "liked", at=WHEN), told(at="2026-11-02")]
    assert counts(post(ADDRESS, rows)) == (4, 4, 0)
    assert counts(post(ADDRESS, rows)) == (4, 0, 4)
    assert counts(post(ADDRESS, [*rows, told(3, at=WHEN), told(3, at=WHEN)])) == (6, 1, 5)
    assert counts(post(ADDRESS, told(at="2026-11-01T13:00:00+01:00"))) == (1, 0, 1), "the same moment"
    row = Interaction.objects.earliest("id")
    assert (row.user, row.movie_id, row.kind, row.client) == ("u-1", 1, "liked", client_user)
    assert row.at == dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)


def test_without_a_time_it_is_now_and_the_same_again_is_a_repeat(
    catalogue: RegisteredModel, post: Post
) -> None:
    assert counts(post(ADDRESS, [told(), told(), told(user="u-2")])) == (3, 2, 1)
    assert counts(post(ADDRESS, told())) == (1, 0, 1)
    assert counts(post(ADDRESS, told(at=None))) == (1, 0, 1)
    assert counts(post(ADDRESS, told(kind="disliked"))) == (1, 1, 0), "somebody's mind changed"
    assert counts(post(ADDRESS, [told(9, at=WHEN), told(9)])) == (2, 1, 1)
    assert timezone.now() - Interaction.objects.earliest("id").at < dt.timedelta(seconds=30)


@pytest.mark.django_db(transaction=True)
def test_two_that_retry_at_the_same_moment_record_it_once(catalogue: RegisteredModel) -> None:
    at_once(*[lambda: recording.record([told(1), told(2)], by=None) and None] * 4)
    assert sorted(Interaction.objects.values_list("movie_id", flat=True)) == [1, 2]


@pytest.mark.django_db(transaction=True)
def test_the_same_rows_in_any_order_at_once_do_not_wait_for_each_other_in_a_circle(
    catalogue: RegisteredModel,
) -> None:
    """Each of two transactions would hold a row of the unique index that the other one wants next."""
    rows = [told(n % 7 + 1, user=f"u-{n}", at=WHEN) for n in range(3_000)]
    counted: list[int] = []
    for _ in range(3):
        for row in rows:
            row["user"] += "x"
        at_once(
            lambda: counted.append(recording.record(rows, by=None).recorded),
            lambda: counted.append(recording.record(rows[::-1], by=None).recorded),
        )
    assert len(counted) == 6, "one was ended as a deadlock"
    assert sum(counted) == 3 * len(rows) == Interaction.objects.count()


def test_every_fault_of_every_row_is_named_and_nothing_is_kept(
    catalogue: RegisteredModel, post: Post
) -> None:
    tomorrow = (timezone.now() + dt.timedelta(days=1)).isoformat()
    cases: list[tuple[Any, set[tuple[str | None, str]]]] = [
        (told(), set()),
        (told(4711), {("movie_id", "unknown_movie")}),
        (told(0), {("movie_id", "out_of_bounds")}),
        (told(True), {("movie_id", "not_an_integer")}),
        (told(kind="adored"), {("kind", "not_a_level")}),
        (told(user=""), {("user", "null_not_allowed")}),
        (told(user="x" * 201), {("user", "too_long")}),
        (told(user="a\x00"), {("user", "bad_text")}),
        (told(user=7), {("user", "not_text")}),
        (told(at="soon"), {("at", "not_a_time")}),
        (told(at=5), {("at", "not_a_time")}),
        (told(at=tomorrow), {("at", "in_the_future")}),
        (told(rank=1), {("rank", "unknown_field")}),
        ("row", {(None, "not_an_object")}),
        (
            {"kind": None},
            {("user", "missing_field"), ("movie_id", "missing_field"), ("kind", "null_not_allowed")},
        ),
    ]
    error = assert_error(post(ADDRESS, [body for body, _ in cases]), 400, "invalid_input")
    found: dict[int, set[tuple[str | None, str]]] = {}
    for fault in error["details"]:
        found.setdefault(fault["row"], set()).add((fault.get("field"), fault["code"]))
    assert found == {at: faults for at, (_, faults) in enumerate(cases) if faults}
    assert error["message"] == "14 of 15 interactions are invalid"
    assert not Interaction.objects.exists()
    for body in ([], 7, '"x"', "null", "[" * 100_000, '[{"user": "\\ud800"}]', '[{"movie_id": 1e999}]'):
        assert post(ADDRESS, body if isinstance(body, str) else json.dumps(body)).status_code == 400


def test_no_more_rows_than_a_request_may_have(catalogue: RegisteredModel, post: Post, settings: Any) -> None:
    settings.PREDICT_MAX_ROWS = 3
    assert_error(post(ADDRESS, [told()] * 4), 413, "too_many_rows")
    assert counts(post(ADDRESS, [told(n) for n in (1, 2, 3)])) == (3, 3, 0)
    settings.PREDICT_MAX_ROWS = 10_000
    error = assert_error(post(ADDRESS, b"[" + b"{}," * 9_000 + b"{}]"), 400, "invalid_input")
    assert (error["truncated"], len(error["details"])) == (True, 100)


def test_interactions_are_listed_by_user_and_movie_in_pages(
    catalogue: RegisteredModel, post: Post, api: APIClient
) -> None:
    post(ADDRESS, [told(n, user=f"u-{n % 2}", at=f"2026-11-01T12:00:0{n}Z") for n in (7, 2, 3, 1, 5, 6, 4)])

    def listed(query: str) -> list[int]:
        body = api.get(f"{ADDRESS}{query}").json()
        return [row["movie_id"] for row in body["interactions"]]

    assert listed("") == [7, 6, 5, 4, 3, 2, 1]
    assert listed("?user=u-1") == [7, 5, 3, 1]
    assert listed("?movie_id=4") == [4]
    assert listed("?user=%00") == listed("?user=nobody") == []
    first = api.get(f"{ADDRESS}?limit=5").json()
    assert [row["movie_id"] for row in api.get(first["next"]).json()["interactions"]] == [2, 1]
    assert_error(api.get(f"{ADDRESS}?cursor=x"), 400, "invalid_input")


def test_telling_and_reading_need_rights_of_their_own(catalogue: RegisteredModel) -> None:
    def caller(right: str) -> APIClient:
        user = User.objects.create(username=right)
        user.user_permissions.set(Permission.objects.filter(codename=right))
        return keyed(user)

    tells, reads = caller("give_outcomes"), caller("read_log")
    assert counts(tells.post(ADDRESS, told(), format="json")) == (1, 1, 0)
    assert_error(tells.get(ADDRESS), 403, "forbidden")
    assert reads.get(ADDRESS).status_code == 200
    assert_error(reads.post(ADDRESS, told(), format="json"), 403, "forbidden")
    page = tells.get(ADDRESS, headers={"Accept": "text/html"})
    assert page.status_code == 403


def test_interactions_are_append_only_and_their_movies_stay(catalogue: RegisteredModel, post: Post) -> None:
    post(ADDRESS, told())
    for statement in (
        "UPDATE recommender_interaction SET kind = 'disliked'",
        "DELETE FROM recommender_interaction",
        "DELETE FROM recommender_movie WHERE id = 7",
        "UPDATE recommender_movie SET id = 700 WHERE id = 7",
    ):
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    assert Interaction.objects.get().kind == "liked"


def test_what_is_nobodys_or_of_an_unknown_kind_the_database_refuses(catalogue: RegisteredModel) -> None:
    usual: dict[str, Any] = {"user": "u", "movie_id": 1, "kind": "liked", "at": timezone.now()}
    for wrong in ({"user": None}, {"user": ""}, {"kind": "adored"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Interaction.objects.create(**usual | wrong)
