"""Recording of interactions: repeated requests add nothing, and rows never change."""

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


def entry(movie_id: int = 1, kind: str = "liked", user: str = "u-1", **more: Any) -> dict[str, Any]:
    return {"user": user, "movie_id": movie_id, "kind": kind} | more


def counts(answer: Any) -> tuple[int, int, int]:
    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert body["model"] == "movies"
    return body["received"], body["recorded"], body["repeated"]


def test_interactions_are_recorded_and_repeating_them_is_harmless(
    catalogue: RegisteredModel, post: Post, client_user: User
) -> None:
    rows = [entry(at=WHEN), entry(2, "watched", at=WHEN), entry(2, "liked", at=WHEN), entry(at="2026-11-02")]
    assert counts(post(ADDRESS, rows)) == (4, 4, 0)
    assert counts(post(ADDRESS, rows)) == (4, 0, 4)
    assert counts(post(ADDRESS, [*rows, entry(3, at=WHEN), entry(3, at=WHEN)])) == (6, 1, 5)
    assert counts(post(ADDRESS, entry(at="2026-11-01T13:00:00+01:00"))) == (1, 0, 1), "the same moment"
    row = Interaction.objects.earliest("id")
    assert (row.user, row.movie_id, row.kind, row.client) == ("u-1", 1, "liked", client_user)
    assert row.at == dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)


def test_an_interaction_without_a_time_happens_now_and_repeats_count_as_repeated(
    catalogue: RegisteredModel, post: Post
) -> None:
    assert counts(post(ADDRESS, [entry(), entry(), entry(user="u-2")])) == (3, 2, 1)
    assert counts(post(ADDRESS, entry())) == (1, 0, 1)
    assert counts(post(ADDRESS, entry(at=None))) == (1, 0, 1)
    assert counts(post(ADDRESS, entry(kind="disliked"))) == (1, 1, 0), "the user has changed the opinion"
    assert counts(post(ADDRESS, [entry(9, at=WHEN), entry(9)])) == (2, 1, 1)
    assert timezone.now() - Interaction.objects.earliest("id").at < dt.timedelta(seconds=30)


@pytest.mark.django_db(transaction=True)
def test_concurrent_retries_record_an_interaction_once(catalogue: RegisteredModel) -> None:
    at_once(*[lambda: recording.record([entry(1), entry(2)], by=None) and None] * 4)
    assert sorted(Interaction.objects.values_list("movie_id", flat=True)) == [1, 2]


@pytest.mark.django_db(transaction=True)
def test_concurrent_requests_with_the_same_rows_in_any_order_do_not_deadlock(
    catalogue: RegisteredModel,
) -> None:
    """Without a common order each of two transactions would wait for a row of the unique index that the other
    holds."""
    rows = [entry(n % 7 + 1, user=f"u-{n}", at=WHEN) for n in range(3_000)]
    counted: list[int] = []
    for _ in range(3):
        for row in rows:
            row["user"] += "x"
        at_once(
            lambda: counted.append(recording.record(rows, by=None).recorded),
            lambda: counted.append(recording.record(rows[::-1], by=None).recorded),
        )
    assert len(counted) == 6, "a deadlock ended a transaction"
    assert sum(counted) == 3 * len(rows) == Interaction.objects.count()


def test_a_request_with_bad_rows_names_every_fault_and_records_nothing(
    catalogue: RegisteredModel, post: Post
) -> None:
    tomorrow = (timezone.now() + dt.timedelta(days=1)).isoformat()
    cases: list[tuple[Any, set[tuple[str | None, str]]]] = [
        (entry(), set()),
        (entry(4711), {("movie_id", "unknown_movie")}),
        (entry(0), {("movie_id", "out_of_bounds")}),
        (entry(True), {("movie_id", "not_an_integer")}),
        (entry(kind="adored"), {("kind", "not_a_level")}),
        (entry(user=""), {("user", "null_not_allowed")}),
        (entry(user="x" * 201), {("user", "too_long")}),
        (entry(user="a\x00"), {("user", "bad_text")}),
        (entry(user=7), {("user", "not_text")}),
        (entry(at="soon"), {("at", "not_a_time")}),
        (entry(at=5), {("at", "not_a_time")}),
        (entry(at=tomorrow), {("at", "in_the_future")}),
        (entry(rank=1), {("rank", "unknown_field")}),
        ("row", {(None, "not_an_object")}),
        (
            {"kind": None},
            {("user", "missing_field"), ("movie_id", "missing_field"), ("kind", "null_not_allowed")},
        ),
    ]
    error = assert_error(post(ADDRESS, [body for body, _ in cases]), 400, "invalid_input")
    named: dict[int, set[tuple[str | None, str]]] = {}
    for fault in error["details"]:
        named.setdefault(fault["row"], set()).add((fault.get("field"), fault["code"]))
    assert named == {at: faults for at, (_, faults) in enumerate(cases) if faults}
    assert error["message"] == "14 of 15 interactions are invalid"
    assert not Interaction.objects.exists()
    for body in ([], 7, '"x"', "null", "[" * 100_000, '[{"user": "\\ud800"}]', '[{"movie_id": 1e999}]'):
        assert post(ADDRESS, body if isinstance(body, str) else json.dumps(body)).status_code == 400


def test_a_request_with_too_many_rows_is_refused(
    catalogue: RegisteredModel, post: Post, settings: Any
) -> None:
    settings.PREDICT_MAX_ROWS = 3
    assert_error(post(ADDRESS, [entry()] * 4), 413, "too_many_rows")
    assert counts(post(ADDRESS, [entry(n) for n in (1, 2, 3)])) == (3, 3, 0)
    settings.PREDICT_MAX_ROWS = 10_000
    error = assert_error(post(ADDRESS, b"[" + b"{}," * 9_000 + b"{}]"), 400, "invalid_input")
    assert (error["truncated"], len(error["details"])) == (True, 100)


def test_interactions_are_listed_by_user_and_movie_in_pages(
    catalogue: RegisteredModel, post: Post, api: APIClient
) -> None:
    post(ADDRESS, [entry(n, user=f"u-{n % 2}", at=f"2026-11-01T12:00:0{n}Z") for n in (7, 2, 3, 1, 5, 6, 4)])

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


def test_recording_and_reading_need_different_rights(catalogue: RegisteredModel) -> None:
    def caller(right: str) -> APIClient:
        user = User.objects.create(username=right)
        user.user_permissions.set(Permission.objects.filter(codename=right))
        return keyed(user)

    reporter, reader = caller("give_outcomes"), caller("read_log")
    assert counts(reporter.post(ADDRESS, entry(), format="json")) == (1, 1, 0)
    assert_error(reporter.get(ADDRESS), 403, "forbidden")
    assert reader.get(ADDRESS).status_code == 200
    assert_error(reader.post(ADDRESS, entry(), format="json"), 403, "forbidden")
    page = reporter.get(ADDRESS, headers={"Accept": "text/html"})
    assert page.status_code == 403


def test_interactions_are_append_only_and_their_movies_cannot_be_deleted(
    catalogue: RegisteredModel, post: Post
) -> None:
    post(ADDRESS, entry())
    for statement in (
        "UPDATE recommender_interaction SET kind = 'disliked'",
        "DELETE FROM recommender_interaction",
        "DELETE FROM recommender_movie WHERE id = 7",
        "UPDATE recommender_movie SET id = 700 WHERE id = 7",
    ):
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    assert Interaction.objects.get().kind == "liked"


def test_the_database_refuses_interactions_without_a_user_or_with_an_unknown_kind(
    catalogue: RegisteredModel,
) -> None:
    usual: dict[str, Any] = {"user": "u", "movie_id": 1, "kind": "liked", "at": timezone.now()}
    for changes in ({"user": None}, {"user": ""}, {"kind": "adored"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Interaction.objects.create(**usual | changes)
