"""Outcomes: a request is recorded completely or not at all, with harmless repeats and kept corrections."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from core.uuid7 import LAST, lowest_at
from predictions.models import Outcome, Prediction
from predictions.outcomes import labelled_rows, recording
from predictions.tasks import join_waiting_outcomes
from tests.conftest import Post, assert_error, at_once, keyed, new_ids
from tests.predictions.admin.test_log import answered
from tests.trained import train_sample
from training.models import ModelVersion

pytestmark = pytest.mark.django_db(transaction=True)
OUTCOMES = "/api/v1/models/churn/outcomes/"
WHEN = "2026-11-01T12:00:00Z"


def counts_of(response: Any) -> dict[str, int]:
    assert response.status_code == 200, response.content
    body: dict[str, int] = response.json()
    assert body.pop("model") == "churn"
    del body["warnings"], body["ambiguous"]
    return {name: count for name, count in body.items() if count}


def shown(api: APIClient, address: str) -> tuple[dict[str, Any], list[Any]]:
    """Returns the outcome of a row of the log, and the values in its history."""
    outcome = api.get(address).json()["outcome"]
    return outcome, [each["actual"] for each in outcome.pop("history")]


def test_outcomes_are_recorded_repeated_and_corrected(
    churn: ModelVersion, post: Post, api: APIClient, client_user: User
) -> None:
    first, second = answered(churn, 2)
    rows = [
        {"prediction": str(first.pk), "actual": True, "observed_at": WHEN},
        {"prediction": str(second.pk), "actual": "no", "observed_at": WHEN},
    ]
    assert counts_of(post(OUTCOMES, rows)) == {"received": 2, "recorded": 2}
    assert counts_of(post(OUTCOMES, rows)) == {"received": 2, "repeated": 2}
    assert list(Outcome.objects.order_by("id").values_list("actual", flat=True)) == [True, False]
    address = f"/api/v1/predictions/{first.pk}/"
    expected = {"actual": True, "observed_at": WHEN, "corrections": 0}
    assert shown(api, address) == (expected, [True])
    correction = {"prediction": str(first.pk), "actual": False, "observed_at": "2026-11-02"}
    assert counts_of(post(OUTCOMES, correction)) == {"received": 1, "corrected": 1}
    expected = {"actual": False, "observed_at": "2026-11-02T00:00:00Z", "corrections": 1}
    assert shown(api, address) == (expected, [False, True])
    assert counts_of(post(OUTCOMES, rows)) == {"received": 2, "repeated": 2}, (
        "a late retry does not undo a correction"
    )
    assert shown(api, address) == (expected, [False, True])
    kept = Outcome.objects.filter(prediction_id=first.pk).order_by("id")
    assert [(row.actual, row.client) for row in kept] == [(True, client_user), (False, client_user)]


def test_the_default_time_is_now_and_the_same_outcome_is_a_repeat(churn: ModelVersion, post: Post) -> None:
    [row] = answered(churn)
    outcome = {"prediction": str(row.pk), "actual": True}
    assert counts_of(post(OUTCOMES, outcome)) == {"received": 1, "recorded": 1}
    assert counts_of(post(OUTCOMES, outcome)) == {"received": 1, "repeated": 1}
    assert counts_of(post(OUTCOMES, [outcome | {"actual": 0}, outcome, outcome])) == {
        "received": 3,
        "corrected": 2,
        "repeated": 1,
    }
    held = recording.of(row.pk)
    assert held is not None
    assert (held["actual"], held["corrections"]) == (True, 2)
    assert timezone.now() - held["observed_at"] < dt.timedelta(seconds=30)


def test_every_fault_of_every_row_is_reported_and_nothing_is_recorded(
    churn: ModelVersion, post: Post
) -> None:
    [row] = answered(churn)
    other = train_sample("houses", rows=150)
    [foreign] = answered(other, cells=[None] * len(other.dataset_schema.columns), prediction=1.0)
    mine, unknown = str(row.pk), str(uuid.uuid4())
    tomorrow = (timezone.now() + dt.timedelta(days=1)).isoformat()
    cases: list[tuple[Any, set[tuple[str | None, str]]]] = [
        ({"prediction": mine, "actual": True}, set()),
        ({"prediction": unknown, "actual": True}, {("prediction", "unknown_prediction")}),
        ({"prediction": str(foreign.pk), "actual": True}, {("prediction", "unknown_prediction")}),
        ({"prediction": mine, "actual": "perhaps"}, {("actual", "not_a_boolean")}),
        ({"key": "later", "actual": 7}, {("actual", "not_a_boolean")}),
        ({"prediction": "seven", "actual": True}, {("prediction", "unknown_prediction")}),
        (
            {"actual": None, "observed_at": 5},
            {("prediction", "missing_field"), ("actual", "null_not_allowed"), ("observed_at", "not_a_time")},
        ),
        (
            {"prediction": mine, "key": "k", "observed_at": tomorrow, "note": "x"},
            {
                ("key", "duplicate_field"),
                ("actual", "missing_field"),
                ("observed_at", "in_the_future"),
                ("note", "unknown_field"),
            },
        ),
        ("row", {(None, "not_an_object")}),
        ({"key": ["k"], "actual": True}, {("key", "bad_key")}),
        ({"prediction": mine, "actual": True, "observed_at": "soon"}, {("observed_at", "not_a_time")}),
    ]
    error = assert_error(post(OUTCOMES, [body for body, _ in cases]), 400, "invalid_input")
    found: dict[int, set[tuple[str | None, str]]] = {}
    for fault in error["details"]:
        found.setdefault(fault["row"], set()).add((fault.get("field"), fault["code"]))
    assert found == {at: faults for at, (_, faults) in enumerate(cases) if faults}
    assert error["message"] == "10 of 11 outcomes are invalid"
    assert not Outcome.objects.exists()
    for body in ([], 7, '"x"'):
        assert_error(post(OUTCOMES, body), 400, "invalid_input")


def test_a_csv_of_outcomes_is_read_like_json(churn: ModelVersion, post: Post) -> None:
    first, second = answered(churn, 2, key="customer-7")
    text = f"prediction;key;actual;observed_at\n{first.pk};;yes;{WHEN}\n;customer-7;no;\n"
    assert counts_of(post(OUTCOMES, text, "text/csv")) == {"received": 2, "recorded": 2}
    held = recording.of(first.pk)
    assert held is not None
    assert (held["actual"], held["corrections"]) == (True, 0)
    assert held["observed_at"] == dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)
    assert Outcome.objects.get(prediction_id=second.pk).key == "customer-7", "the newest with that key"
    bad = "key,actual\na,true\nb,\nc,7\n"
    error = assert_error(post(OUTCOMES, bad, "text/csv"), 400, "invalid_input")
    assert [(fault["row"], fault["line"], fault["code"]) for fault in error["details"]] == [
        (1, 3, "missing_field"),
        (2, 4, "not_a_boolean"),
    ]
    long = f"key,actual\n{'k' * 201},true\n"
    error = assert_error(post(OUTCOMES, long, "text/csv"), 400, "invalid_input")
    assert error["message"] == "1 of 1 outcomes is invalid"
    assert_error(post(OUTCOMES, "key,actual\n", "text/csv"), 400, "invalid_input")
    assert_error(post(OUTCOMES, "key,truth\na,1\n", "text/csv"), 400, "invalid_input")


def test_a_number_in_a_csv_is_read_with_its_decimal_mark(db: None, post: Post) -> None:
    version = train_sample("houses", rows=150)
    [row] = answered(version, cells=[None] * len(version.dataset_schema.columns), prediction=1.0)
    text = f"prediction;actual\n{row.pk};1234,5\n"
    address = OUTCOMES.replace("churn", "houses")
    assert_error(post(address, text, "text/csv"), 400, "invalid_input")
    assert post(f"{address}?decimal=,", text, "text/csv").json()["recorded"] == 1
    assert Outcome.objects.get().actual == 1234.5
    for written, declared, actual in (("1.234", "thousands=.", 1234), ("1.234", "decimal=.", 1.234)):
        text = f"prediction;actual\n{row.pk};{written}\n"
        error = assert_error(post(address, text, "text/csv"), 400, "invalid_input")
        assert [fault["code"] for fault in error["details"]] == ["ambiguous_decimal"]
        assert f"?{declared}" in error["message"]
        assert post(f"{address}?{declared}", text, "text/csv").json()["corrected"] == 1
        assert Outcome.objects.order_by("-id")[0].actual == actual


def test_an_outcome_may_arrive_before_its_prediction(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    early = [{"key": f"c{number}", "actual": True} for number in range(3)]
    assert counts_of(post(OUTCOMES, early)) == {"received": 3, "waiting": 3}
    assert counts_of(post(OUTCOMES, early)) == {"received": 3, "repeated": 3}
    predict = "/api/v1/models/churn/predictions/"
    by_beat = post(predict, customer | {"_key": "c0"}).json()["predictions"][0]["id"]
    assert join_waiting_outcomes() == 1
    assert join_waiting_outcomes() == 0
    assert str(Outcome.objects.get(key="c0").prediction_id) == by_beat
    by_request = post(predict, customer | {"_key": "c1"}).json()["predictions"][0]["id"]
    again = {"key": "c1", "actual": False}
    assert counts_of(post(OUTCOMES, again)) == {"received": 1, "corrected": 1}
    joined = Outcome.objects.filter(key="c1").order_by("id")
    assert [(str(row.prediction_id), row.actual) for row in joined] == [
        (by_request, True),
        (by_request, False),
    ]
    later = post(predict, customer | {"_key": "c2"}).json()["predictions"][0]["id"]
    assert counts_of(post(OUTCOMES, again)) == {"received": 1, "repeated": 1}
    assert str(Outcome.objects.get(key="c2").prediction_id) == later, "every request joins waiting outcomes"


def test_a_retry_by_key_is_a_repeat_even_after_a_newer_prediction(churn: ModelVersion, post: Post) -> None:
    [first] = answered(churn, key="c7")
    outcome = {"key": "c7", "actual": True, "observed_at": timezone.now().isoformat()}
    assert counts_of(post(OUTCOMES, outcome)) == {"received": 1, "recorded": 1}
    [second] = answered(churn, key="c7")
    assert counts_of(post(OUTCOMES, outcome)) == {"received": 1, "repeated": 1}
    assert recording.of(second.pk) is None
    later = outcome | {"observed_at": timezone.now().isoformat()}
    assert counts_of(post(OUTCOMES, later)) == {"received": 1, "recorded": 1}, (
        "another outcome belongs to the newest prediction"
    )
    assert recording.of(second.pk) is not None
    assert Outcome.objects.filter(prediction_id=first.pk).count() == 1


def at(moment: dt.datetime, version: ModelVersion, **fields: Any) -> Prediction:
    """Returns a logged prediction made at `moment`."""
    [row] = answered(version, **fields)
    with transaction.atomic(), connection.cursor() as cursor:  # otherwise the log refuses changes
        cursor.execute("SET LOCAL vigia.maintenance = 'move'")
        cursor.execute("DELETE FROM predictions_prediction WHERE id = %s", [row.pk])
    row.pk = uuid.UUID(int=lowest_at(moment).int | row.pk.int & (2**80 - 1))
    row.save(force_insert=True)
    return row


def test_a_label_belongs_to_the_newest_prediction_made_before_it_was_observed(
    churn: ModelVersion, post: Post
) -> None:
    now = timezone.now()
    days = [now - dt.timedelta(days=day) for day in (20, 10, 2)]
    rows = [at(day, churn, key="c7") for day in days]
    observed = now - dt.timedelta(days=5)
    outcome = {"key": "c7", "actual": True, "observed_at": observed.isoformat()}
    assert counts_of(post(OUTCOMES, outcome)) == {"received": 1, "recorded": 1}
    [row] = Outcome.objects.all()
    assert row.prediction_id == rows[1].pk, "the first prediction came after the observation"
    assert row.observed_at == observed
    exact = {"key": "c7", "actual": False, "observed_at": rows[0].at.isoformat()}
    assert counts_of(post(OUTCOMES, exact)) == {"received": 1, "recorded": 1}
    assert Outcome.objects.latest("id").prediction_id == rows[0].pk, "ids have a resolution of a millisecond"


def test_a_label_from_before_every_prediction_waits_and_no_later_one_gets_it(
    churn: ModelVersion, post: Post
) -> None:
    now = timezone.now()
    [first] = answered(churn, key="c7")
    body = [
        {"key": "c7", "actual": True, "observed_at": (now - dt.timedelta(days=3)).isoformat()},
        {"key": "new", "actual": True, "observed_at": (now - dt.timedelta(days=3)).isoformat()},
        {"key": "new", "actual": False},
    ]
    response = post(OUTCOMES, body).json()
    assert (response["waiting"], response["recorded"], response["ambiguous"]) == (3, 0, 2)
    assert [(each["row"], each["code"]) for each in response["warnings"]] == [
        (0, "no_earlier_prediction"),
        (1, "no_earlier_prediction"),
    ]
    answered(churn, key="c7")
    [later] = answered(churn, key="new")
    assert join_waiting_outcomes() == 1, "only the outcome without a time of observation is joined"
    [joined] = Outcome.objects.filter(prediction_id__isnull=False)
    assert (joined.prediction_id, joined.actual) == (later.pk, False)
    assert recording.of(first.pk) is None


def test_a_waiting_label_is_joined_to_the_prediction_made_before_it_was_observed(
    churn: ModelVersion, post: Post
) -> None:
    """The prediction's commit becomes visible after the outcome has arrived."""
    now = timezone.now()
    outcome = {"key": "c7", "actual": True, "observed_at": (now - dt.timedelta(minutes=10)).isoformat()}
    assert counts_of(post(OUTCOMES, outcome))["waiting"] == 1
    before = at(now - dt.timedelta(minutes=20), churn, key="c7")
    at(now - dt.timedelta(minutes=5), churn, key="c7")
    assert join_waiting_outcomes() == 1
    assert Outcome.objects.get().prediction_id == before.pk


def test_a_key_of_several_predictions_gives_a_warning(churn: ModelVersion, post: Post) -> None:
    answered(churn, key="c7")
    [newest] = answered(churn, key="c7")
    answered(churn, key="alone")
    response = post(OUTCOMES, [{"key": "alone", "actual": True}, {"key": "c7", "actual": True}]).json()
    assert (response["recorded"], response["ambiguous"]) == (2, 1)
    [warning] = response["warnings"]
    assert (warning["row"], warning["code"], warning["value"]) == (1, "several_predictions", "c7")
    assert "observed_at" in warning["message"]
    assert Outcome.objects.get(key="c7").prediction_id == newest.pk


def test_concurrent_equal_outcomes_are_recorded_once(churn: ModelVersion, client_user: User) -> None:
    rows = answered(churn, 20)
    body = [{"prediction": str(row.pk), "actual": True, "observed_at": WHEN} for row in rows]
    body += [{"key": "early", "actual": True, "observed_at": WHEN}]
    answers: list[dict[str, int]] = []

    def send() -> None:
        answers.append(counts_of(keyed(client_user).post(OUTCOMES, body, format="json")))

    at_once(*[send] * 3)
    assert sorted(answer.get("repeated", 0) for answer in answers) == [0, 21, 21]
    assert Outcome.objects.count() == 21


def test_the_database_refuses_changes_of_outcomes(churn: ModelVersion, post: Post) -> None:
    [row] = answered(churn)
    post(OUTCOMES, [{"prediction": str(row.pk), "actual": True}, {"key": "early", "actual": True}])
    other = str(uuid.uuid4())
    early, joined = "key = 'early'", f"prediction_id = '{row.pk}'"
    for statement in (
        f"UPDATE predictions_outcome SET actual = 'false' WHERE {joined}",
        f"UPDATE predictions_outcome SET prediction_id = '{other}' WHERE {joined}",
        f"UPDATE predictions_outcome SET actual = 'false', prediction_id = '{other}' WHERE {early}",
        f"UPDATE predictions_outcome SET prediction_id = NULL WHERE {joined}",
        "DELETE FROM predictions_outcome",
    ):
        with (
            pytest.raises(IntegrityError, match=r"append-only|outcome_of_something"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE predictions_outcome SET prediction_id = '{other}' WHERE {early}")
    assert Outcome.objects.filter(prediction_id=other).count() == 1


def test_the_right_to_give_outcomes_is_needed(churn: ModelVersion, api: APIClient, post: Post) -> None:
    stranger = keyed(User.objects.create_user("stranger"))
    assert_error(stranger.post(OUTCOMES, [], format="json"), 403, "forbidden")
    assert_error(post(OUTCOMES.replace("churn", "nothing"), []), 404, "unknown_model")


def test_too_many_outcomes_are_refused(churn: ModelVersion, post: Post, settings: Any) -> None:
    settings.PREDICT_MAX_ROWS = 2
    assert_error(post(OUTCOMES, [{"key": "a", "actual": True}] * 3), 413, "too_many_rows")
    assert_error(post(OUTCOMES, "key,actual\n" + "a,true\n" * 3, "text/csv"), 413, "too_many_rows")


def test_thousands_are_recorded_by_a_few_statements(
    churn: ModelVersion, django_assert_max_num_queries: Any
) -> None:
    ids = new_ids(3_000)
    answered(churn, ids=ids)
    rows = [{"prediction": str(id), "actual": True, "observed_at": WHEN} for id in ids]
    rows += [{"key": f"k{number}", "actual": True} for number in range(3_000)]
    from predictions.outcomes import parsing

    started = time.monotonic()
    with django_assert_max_num_queries(16):
        counts = recording.record(churn.registered_model, parsing.from_json(rows), by=None)
    assert (counts.recorded, counts.waiting) == (3_000, 3_000)
    assert time.monotonic() - started < 10


def test_a_window_has_the_newest_outcome_of_each_prediction(churn: ModelVersion, post: Post) -> None:
    rows = answered(churn, 5)
    for actual, some in ((True, rows[:4]), (False, rows[1:3])):
        post(OUTCOMES, [{"prediction": str(row.pk), "actual": actual} for row in some])
    model = churn.registered_model_id

    def read(low: uuid.UUID, high: uuid.UUID, **more: Any) -> list[tuple[str, str]]:
        pages = labelled_rows.pages(model, low, high, inputs=False, **more)
        return [(row.prediction_id, row.actual) for page in pages for row in page]

    expected = [
        (str(row.pk), outcome) for row, outcome in zip(rows, ("true", "false", "false", "true"), strict=False)
    ]
    start = lowest_at(timezone.now() - dt.timedelta(hours=1))
    for size in (1, 2, 4, 100):
        assert read(start, LAST, size=size) == expected
    assert read(rows[1].pk, rows[3].pk) == expected[1:3], "the first is in the window, the last is not"
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL vigia.maintenance = 'move'")
        cursor.execute("DELETE FROM predictions_prediction WHERE id = %s", [rows[0].pk])
    assert read(start, LAST, size=1) == expected[1:], "the month of a prediction may have been dropped"


def test_the_admin_shows_outcomes(churn: ModelVersion, post: Post, client: Client) -> None:
    client.force_login(User.objects.create_superuser("boss"))
    [row] = answered(churn)
    post(OUTCOMES, [{"prediction": str(row.pk), "actual": True}, {"key": "<b>early</b>", "actual": False}])
    post(OUTCOMES, {"prediction": str(row.pk), "actual": False})
    page = client.get(f"/admin/predictions/prediction/{row.pk}/change/").content.decode()
    assert "corrected 1 time<" in page
    listed = client.get("/admin/predictions/outcome/")
    assert len(listed.context["cl"].result_list) == 3
    assert b"<b>early</b>" not in listed.content
    for term, count in ((str(row.pk), 2), ("<b>early</b>", 1), ("nobody", 0)):
        listed = client.get("/admin/predictions/outcome/", {"q": term})
        assert len(listed.context["cl"].result_list) == count
    assert client.get("/admin/predictions/outcome/add/").status_code == 403
    clerk = User.objects.create_user("clerk", is_staff=True)
    client.force_login(clerk)
    assert client.get("/admin/predictions/outcome/").status_code == 403


def test_recording_writes_only_outcomes(churn: ModelVersion, post: Post) -> None:
    [row] = answered(churn)
    post(OUTCOMES, {"prediction": str(row.pk), "actual": True})
    assert Prediction.objects.count() == 1


@pytest.mark.parametrize(
    "body",
    [
        '[{"key": "\\ud800", "actual": true}]',
        '[{"key": "a\\u0000b", "actual": true}]',
        '[{"\\ud800": 1, "key": "a", "actual": true}]',
        '[{"key": "a", "actual": 1e999}]',
        '[{"key": "a", "actual": {"deep": [1]}}]',
        '[{"key": "a", "key": "b", "actual": true}]',
        '[{"prediction": {"id": 1}, "actual": true}]',
        '[{"prediction": "%s", "actual": true}]' % ("9" * 5_000),
        '[{"key": "a", "actual": true, "observed_at": "0001-01-01T00:00:00+14:00"}]',
        '[{"key": "a", "actual": true, "observed_at": "%s"}]' % ("2" * 5_000),
        '[{"key": "a", "actual": true, "observed_at": [1]}]',
        '[{"key": "%s", "actual": true}]' % ("k" * 201),
        "[[[]]]",
    ],
    ids=lambda body: body[:40],
)
def test_hostile_outcomes_are_refused(churn: ModelVersion, post: Post, body: str) -> None:
    assert_error(post(OUTCOMES, body), 400, "invalid_input")
    assert not Outcome.objects.exists()
