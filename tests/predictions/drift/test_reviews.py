"""Drift reviews of the log, on demand and on schedule, with their findings."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from core.models import Event
from core.uuid7 import lowest_at
from predictions import overview as glances
from predictions import tasks
from predictions.drift import reviews
from predictions.models import DriftFinding, DriftReview, Prediction
from predictions.rollups import counting
from tests.conftest import Post, assert_error, at_once, keyed
from tests.predictions.watched import reviewed, this_hour
from tests.trained import SAMPLES, train_sample
from training.models import ModelVersion, ReferenceProfile, RegisteredModel, TrainingRun
from training.registry import lookup
from training.runs import requests as run_requests
from vigia_ml.reference_profile import Profile, of_column
from web.metrics import database_collector

pytestmark = pytest.mark.django_db(transaction=True)
PREDICTIONS = "/api/v1/models/churn/predictions/"
OUTCOMES = "/api/v1/models/churn/outcomes/"
DRIFT = "/api/v1/models/churn/drift/"
TRAINED = 600
Row = dict[str, str]


def rows(since: int, until: int, **changed: Callable[[Row], str]) -> list[Row]:
    """Returns customers of the sample that are not in the training data, optionally with other values."""
    with (SAMPLES / "churn.csv").open(encoding="utf-8", newline="") as stream:
        customers = list(csv.DictReader(stream))[TRAINED + since : TRAINED + until]
    return [row | {name: change(row) for name, change in changed.items()} for row in customers]


def send(post: Post, customers: list[Row]) -> list[dict[str, Any]]:
    text = io.StringIO()
    writer = csv.DictWriter(text, [name for name in customers[0] if name != "Churn"], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(customers)
    response = post(PREDICTIONS, text.getvalue(), content_type="text/csv")
    assert response.status_code == 200, response.content
    answers: list[dict[str, Any]] = response.json()["predictions"]
    return answers


SHIFTED = {"tenure": lambda row: "1", "Contract": lambda row: "Month-to-month"}


def now_window() -> dict[str, str]:
    return {"since": (timezone.now() - dt.timedelta(hours=1)).isoformat()}


# -- on demand -----------------------------------------------------------------------------------------


def test_a_window_like_the_training_data_is_stable_and_another_lists_its_drifted_columns(
    churn: ModelVersion, post: Post, api: APIClient
) -> None:
    assert_error(api.get(DRIFT), 404, "not_found")
    send(post, rows(0, 600))
    body = api.get(DRIFT, now_window()).json()
    assert (body["model"], body["version"], body["rows"]) == ("churn", 1, 600)
    assert body["verdict"] in ("stable", "notice"), body["reason"]
    assert body["drifting"] == []
    findings = {finding["column"]: finding for finding in body["findings"]}
    assert list(findings) == [*churn.dataset_schema.names, "_prediction", "_probability"]
    tenure = findings["tenure"]
    assert sum(tenure["bins"]["window"]) == 600 == tenure["rows"]
    assert sum(tenure["bins"]["reference"]) == churn.train_rows == tenure["reference_rows"]
    assert (tenure["missing"], tenure["unseen"], tenure["outside"]) == (0, None, 0) or tenure[
        "outside"
    ] < 0.02
    send(post, rows(600, 1_400, **SHIFTED))
    body = api.get(DRIFT, now_window()).json()
    assert body["verdict"] == "drift"
    assert {"tenure", "contract"} <= set(body["drifting"])
    assert "tenure" in body["reason"]
    assert body["rows"] == 1_400


def set_reference(version: ModelVersion, **columns: Any) -> dict[str, Any]:
    """Replaces the reference of some columns of a version, as training makes it from these values."""
    parts = {each.name: each for each in version.reference.profile.columns}
    for column in version.dataset_schema.columns:
        if column.name in columns:
            parts[column.name] = of_column(column, np.asarray(columns[column.name], dtype=float))
    bins = Profile(tuple(parts.values()), version.reference.profile.answers).to_json()
    ReferenceProfile.objects.filter(version=version).delete()  # a profile cannot be changed
    ReferenceProfile.objects.create(version=version, bins=bins)
    return bins


def test_a_new_value_is_unseen_and_a_missing_frequent_value_is_drift(
    churn: ModelVersion, post: Post, api: APIClient
) -> None:
    charges = np.where(np.arange(600) < 570, 20.0, np.linspace(30, 110, 600))
    set_reference(churn, tenure=np.repeat([1.0, 24.0, 72.0], [300, 200, 100]), monthlycharges=charges)
    charged = iter(np.linspace(30, 110, 120))
    send(post, rows(0, 120, tenure=lambda row: "12", MonthlyCharges=lambda row: f"{next(charged):.1f}"))
    body = api.get(DRIFT, now_window()).json()
    found = {each["column"]: each for each in body["findings"]}
    tenure, charge = found["tenure"], found["monthlycharges"]
    assert (tenure["verdict"], tenure["unseen"], tenure["outside"]) == ("drift", 1.0, None)
    assert tenure["bins"]["labels"] == ["1", "24", "72", "unseen", "missing"]
    assert tenure["bins"]["window"] == [0, 0, 0, 120, 0]
    assert tenure["bins"]["apart"] == ["", "", "", "unseen", "missing"]
    assert (charge["verdict"], charge["unseen"]) == ("drift", None)
    assert charge["bins"]["window"][charge["bins"]["labels"].index("20")] == 0
    assert {"tenure", "monthlycharges"} <= set(body["drifting"])
    page = api.get(f"{DRIFT}{body['id']}/", {"format": "html"}).content.decode()
    assert re.search(r'<th scope="row">unseen</th>', page), "the label is not repeated"


def test_a_review_with_a_profile_without_single_values_shows_a_notice(
    churn: ModelVersion, post: Post, api: APIClient, client: Client
) -> None:
    client.force_login(User.objects.create_superuser("boss"))
    bins = set_reference(churn)
    for column in (*bins["columns"], *bins["answers"]):
        if column["kind"] != "level":
            edges = column["edges"]
            column |= {"counts": [1] * (len(edges) + 2), "sums": [0.0] * (len(edges) + 2), "truth": {}}
            for name in ("gaps", "places", "missing", "slack"):
                del column[name]
    ReferenceProfile.objects.filter(version=churn).delete()
    ReferenceProfile.objects.create(version=churn, bins=bins)
    send(post, rows(0, 60))
    body = api.get(DRIFT, now_window()).json()
    assert body["rows"] == 60 and "older than bins of single values" in body["reason"]
    watch = client.get(reverse("watch", args=[churn.registered_model_id]))
    assert "older than bins of single values" in watch.content.decode()


def test_a_review_is_stored_and_an_unchanged_window_returns_it(
    churn: ModelVersion, post: Post, api: APIClient, client_user: User
) -> None:
    send(post, rows(0, 100))
    window = now_window()
    first = api.get(DRIFT, window).json()
    assert api.get(DRIFT, window).json()["id"] == first["id"]
    stored = DriftReview.objects.get()
    assert (stored.requested_by, stored.scheduled, stored.rows) == (client_user, False, 100)
    assert DriftFinding.objects.filter(review=stored).count() == 21
    send(post, rows(100, 150))
    second = api.get(DRIFT, window).json()
    assert (second["id"], second["rows"]) == (first["id"] + 1, 150)
    assert api.get(DRIFT).json() == second, "without a window the latest review is returned"
    listed = api.get(f"{DRIFT}reviews/").json()
    assert [each["id"] for each in listed] == [second["id"], first["id"]]
    assert "findings" not in listed[0]
    assert api.get(f"{DRIFT}{first['id']}/").json()["rows"] == 100, "a review keeps its counts"
    assert_error(api.get(f"{DRIFT}999999/"), 404, "not_found")


def test_rows_committed_during_a_review_are_in_the_next_one(
    churn: ModelVersion, post: Post, api: APIClient
) -> None:
    answers = send(post, rows(0, 60))
    assert api.get(DRIFT, now_window()).json()["rows"] == 60
    # The row's id is older than that review, and its COMMIT is younger.
    late = uuid.UUID(int=uuid.UUID(answers[0]["id"]).int - 1)
    with connection.cursor() as cursor:
        names = [field.column for field in Prediction._meta.concrete_fields if field.name != "id"]
        listed = ", ".join(f'"{name}"' for name in names)
        cursor.execute(
            f"INSERT INTO predictions_prediction (id, {listed}) "
            f"SELECT %s, {listed} FROM predictions_prediction WHERE id = %s",
            [late, answers[0]["id"]],
        )
    outcomes = [{"prediction": each["id"], "actual": True} for each in [*answers, {"id": str(late)}]]
    assert post(OUTCOMES, outcomes).status_code == 200
    body = api.get(DRIFT, now_window()).json()
    assert body["rows"] == 61
    [known] = body["quality"]
    assert (known["answered"], known["labelled"], known["coverage"]) == (61, 61, 1.0)


def test_windows_are_widened_to_whole_hours_and_invalid_ones_refused(
    churn: ModelVersion, api: APIClient
) -> None:
    since, until = reviews.whole_hours(
        dt.datetime(2026, 1, 1, 10, 30, tzinfo=dt.UTC), dt.datetime(2026, 1, 1, 12, 0, 1, tzinfo=dt.UTC)
    )
    assert (since.hour, until.hour) == (10, 13)
    later = (timezone.now() + dt.timedelta(days=2)).isoformat()
    assert_error(api.get(DRIFT, {"since": later}), 400, "invalid_input")
    assert_error(api.get(DRIFT, {"since": "2020-01-01", "until": "2026-01-01"}), 400, "invalid_input")
    assert_error(api.get(DRIFT, {"since": "yesterday"}), 400, "invalid_input")
    assert_error(api.get(DRIFT, {"version": "two"}), 400, "invalid_input")
    assert_error(api.get(DRIFT, {"version": 7}), 404, "unknown_version")
    empty = api.get(DRIFT, {"since": "2026-01-01", "until": "2026-01-02"}).json()
    assert (empty["verdict"], empty["rows"]) == ("insufficient", 0)


def test_windows_at_the_ends_of_time_are_refused_or_cut(churn: ModelVersion, api: APIClient) -> None:
    for asked in (
        {"until": "0001-01-01T00:00:00Z"},
        {"until": "0001-01-01T00:00:00+14:00"},
        {"since": "0001-01-01T00:00:00+14:00"},
        {"since": "9999-12-31T23:59:59-14:00"},
        {"since": "9999-12-31T23:59:59Z", "until": "9999-12-31T23:59:59Z"},
    ):
        assert_error(api.get(DRIFT, asked), 400, "invalid_input")
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    for end in ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-14:00"):
        now = api.get(DRIFT, {"since": hour.isoformat(), "until": end}).json()
        assert dt.datetime.fromisoformat(now["until"]) <= timezone.now() + dt.timedelta(hours=1)


def test_a_review_of_an_old_window_does_not_become_the_latest(
    churn: ModelVersion, api: APIClient, post: Post
) -> None:
    send(post, rows(0, 100))
    now = api.get(DRIFT, now_window()).json()
    old = api.get(DRIFT, {"since": "2026-01-01", "until": "2026-01-02"}).json()
    assert old["id"] > now["id"]
    assert api.get(DRIFT).json()["id"] == now["id"]
    assert glances.latest_reviews([churn.registered_model_id])[churn.registered_model_id].pk == now["id"]

    def counted() -> list[float]:
        shown = {family.name: family.samples for family in database_collector.collect()}
        return [sample.value for sample in shown.get("vigia_review_rows", ())]

    assert counted() == [], "alerts use scheduled reviews"
    RegisteredModel.objects.update(review_hours=0)
    assert counted() == [100], "without scheduled reviews they use the newest window"


def latest_everywhere(model: RegisteredModel) -> DriftReview | None:
    """Returns the model's latest review, which is the same in the API, on the dashboard and in the list."""
    latest = reviews.latest(model)
    assert glances.latest_reviews([model.pk]).get(model.pk) == latest
    return latest


def test_a_review_of_a_retired_version_does_not_become_the_latest(
    churn: ModelVersion, post: Post, api: APIClient, client: Client
) -> None:
    model = churn.registered_model
    send(post, rows(0, 60))
    old = api.get(DRIFT, now_window() | {"version": 1}).json()
    second = train_sample("churn", rows=TRAINED)
    found = latest_everywhere(model)
    assert found is not None and found.pk == old["id"], "the active version has no review"
    client.force_login(User.objects.create_superuser("boss"))
    overview = reverse("watched")
    assert "of version 1, " in client.get(overview).content.decode()
    now = reviewed(second, drifted=("tenure",))
    retired = api.get(DRIFT, now_window() | {"version": 1}).json()
    assert retired["until"] > now.until.isoformat()
    assert latest_everywhere(model) == now
    assert "of version 1, " not in client.get(overview).content.decode()
    assert (api.get(DRIFT).json()["id"], api.get(DRIFT).json()["verdict"]) == (now.pk, "drift")

    def counted() -> set[str]:
        shown = {family.name: family.samples for family in database_collector.collect()}
        return {sample.labels["version"] for sample in shown.get("vigia_review_verdict", ())}

    RegisteredModel.objects.update(review_hours=0)
    assert counted() == {"2"}, "a review on demand of the active version counts too"


def test_a_review_of_a_short_window_does_not_replace_the_scheduled_one_and_a_long_one_does(
    churn: ModelVersion,
) -> None:
    model, week = churn.registered_model, dt.timedelta(hours=churn.registered_model.review_window_hours)
    hour = this_hour()
    short = reviewed(churn, since=hour - dt.timedelta(hours=1), until=hour)
    assert latest_everywhere(model) == short, "a short window is used if no other exists"
    yesterday = hour - dt.timedelta(hours=20)
    scheduled = reviewed(churn, since=yesterday - week, until=yesterday, scheduled=True, drifted=("tenure",))
    assert latest_everywhere(model) == scheduled
    long = reviewed(churn, since=hour - week, until=hour)
    assert latest_everywhere(model) == long
    old = dt.timedelta(days=30)
    reviewed(churn, since=hour - old - week, until=hour - old, scheduled=True)
    assert latest_everywhere(model) == long
    model.review_hours = 0
    model.save()
    newest = reviewed(churn, since=hour, until=hour + dt.timedelta(hours=1))
    assert latest_everywhere(model) == newest, "without a schedule every window counts"


def test_every_model_has_its_own_latest_review(churn: ModelVersion) -> None:
    cars = train_sample("cars", rows=300)
    of_churn, of_cars = reviewed(churn), reviewed(cars)
    ids = [churn.registered_model_id, cars.registered_model_id]
    assert glances.latest_reviews(ids) == {ids[0]: of_churn, ids[1]: of_cars}


def test_another_version_is_reviewed_with_its_own_profile(
    churn: ModelVersion, post: Post, api: APIClient
) -> None:
    send(post, rows(0, 60))
    train_sample("churn", rows=TRAINED)
    send(post, rows(60, 130))
    assert api.get(DRIFT, now_window()).json()["rows"] == 70
    old = api.get(DRIFT, now_window() | {"version": 1}).json()
    assert (old["version"], old["rows"]) == (1, 60)


def test_the_error_for_a_missing_profile_names_the_command(churn: ModelVersion, api: APIClient) -> None:
    ReferenceProfile.objects.all().delete()
    error = assert_error(api.get(DRIFT, now_window()), 409, "no_reference_profile")
    assert "profile_versions" in error["message"]


def test_without_an_active_version_there_is_nothing_to_review(db: None, api: APIClient) -> None:
    lookup.sync_catalogue()
    assert_error(api.get(DRIFT, now_window()), 503, "no_active_version")


def test_reviews_need_the_right_to_read_the_log(churn: ModelVersion, post: Post) -> None:
    user = User.objects.create_user("asker")
    user.user_permissions.add(Permission.objects.get(codename="predict"))
    assert_error(keyed(user).get(DRIFT, now_window()), 403, "forbidden")
    user.user_permissions.add(Permission.objects.get(codename="read_log"))
    made = keyed(User.objects.get(pk=user.pk)).get(DRIFT, now_window())
    assert made.status_code == 200
    address = f"{DRIFT}{made.json()['id']}/keep/"
    refused = keyed(User.objects.get(pk=user.pk)).post(address, {"kept": True}, format="json")
    assert_error(refused, 403, "forbidden")


def test_a_review_is_kept_and_released(churn: ModelVersion, api: APIClient, post: Post) -> None:
    made = api.get(DRIFT, now_window()).json()
    assert made["kept"] is False
    assert post(f"{DRIFT}{made['id']}/keep/", {"kept": True}).json()["kept"] is True
    assert DriftReview.objects.get().kept
    assert post(f"{DRIFT}{made['id']}/keep/", {"kept": False}).json()["kept"] is False
    assert_error(post(f"{DRIFT}{made['id']}/keep/", {}), 400, "invalid_input")


def test_a_client_that_may_only_train_keeps_a_review_and_sees_no_levels(
    churn: ModelVersion, api: APIClient
) -> None:
    made = api.get(DRIFT, now_window()).json()
    user = User.objects.create_user("trainer")
    user.user_permissions.add(Permission.objects.get(codename="train"))
    kept = keyed(user).post(f"{DRIFT}{made['id']}/keep/", {"kept": True}, format="json").json()
    assert kept["kept"] is True
    assert not {"findings", "quality", "expected"} & set(kept)


def test_a_review_is_available_as_a_self_contained_page(
    churn: ModelVersion, api: APIClient, post: Post
) -> None:
    send(post, rows(0, 100))
    made = api.get(DRIFT, now_window()).json()
    page = api.get(f"{DRIFT}{made['id']}/", {"format": "html"})
    assert page["Content-Type"].startswith("text/html")
    text = page.content.decode()
    assert "tenure" in text and "<svg" in text
    for outside in ("src=", "<link", "@import", "url(http"):
        assert outside not in text
    assert_error(api.get(f"{DRIFT}999/", {"format": "html"}), 404, "not_found")


# -- on schedule ---------------------------------------------------------------------------------------


def test_a_review_is_made_when_it_is_due_and_not_before(churn: ModelVersion, post: Post) -> None:
    assert tasks.review_models() == 0, "the log is empty"
    send(post, rows(0, 100))
    assert tasks.review_models() == 1
    assert tasks.review_models() == 0
    made = DriftReview.objects.get()
    assert made.scheduled
    assert made.until - made.since == dt.timedelta(hours=24 * 7 + 1), "a week, widened to whole hours"
    then = timezone.now() - dt.timedelta(hours=25)
    DriftReview.objects.update(created_at=then)
    assert tasks.review_models() == 1
    RegisteredModel.objects.update(review_hours=0)
    DriftReview.objects.update(created_at=then)
    assert tasks.review_models() == 0, "the model has no schedule"


def test_a_review_with_too_few_rows_is_repeated_within_the_hour(churn: ModelVersion, post: Post) -> None:
    send(post, rows(0, 10))
    assert tasks.review_models() == 1
    assert DriftReview.objects.get().verdict == "insufficient"
    assert tasks.review_models() == 0
    DriftReview.objects.update(created_at=timezone.now() - dt.timedelta(minutes=61))
    assert tasks.review_models() == 1
    assert DriftReview.objects.count() == 1, "the review replaces the previous one"
    DriftReview.objects.update(created_at=timezone.now() - dt.timedelta(minutes=61), kept=True)
    assert tasks.review_models() == 1
    assert DriftReview.objects.count() == 2, "a kept review is not replaced"


def test_concurrent_workers_make_one_scheduled_review(churn: ModelVersion, post: Post) -> None:
    send(post, rows(0, 100))
    model, now = churn.registered_model, timezone.now()
    at_once(*[lambda: reviews.review_when_due(model, now)] * 4)  # type: ignore[list-item]
    assert DriftReview.objects.count() == 1


def test_a_model_without_a_profile_does_not_stop_reviews_of_other_models(
    churn: ModelVersion, post: Post
) -> None:
    send(post, rows(0, 100))
    bikes = train_sample("bikes", rows=400)
    row = {"season": 1, "yr": 0, "mnth": 1, "hr": 8, "holiday": False, "weekday": 2, "workingday": True}
    row |= {"weathersit": 1, "temp": 0.3, "atemp": 0.3, "hum": 0.5, "windspeed": 0.2}
    assert post("/api/v1/models/bikes/predictions/", row).status_code == 200
    bikes.reference.delete()
    assert tasks.review_models() == 1
    assert DriftReview.objects.get().registered_model.name == "churn"


def insert_by_hand(version: ModelVersion, number: Any) -> None:
    """Inserts a row of two hours ago with `number` in its first numeric column."""
    columns = version.dataset_schema.columns
    cells: list[Any] = [None] * len(columns)
    cells[next(at for at, column in enumerate(columns) if column.is_numeric)] = number
    Prediction.objects.create(
        id=lowest_at(timezone.now() - dt.timedelta(hours=2)),
        registered_model=version.registered_model,
        version=version,
        cells=cells,
        prediction=1.0,
        warnings=[],
        request_id="by hand",
    )


def test_a_log_that_cannot_be_counted_does_not_stop_other_models(churn: ModelVersion, post: Post) -> None:
    send(post, rows(0, 100))
    bikes = train_sample("bikes", rows=400)
    insert_by_hand(bikes, "no number")
    insert_by_hand(churn, 1.0)
    with pytest.raises(ExceptionGroup) as failed:
        tasks.count_the_log()
    assert [str(error.__notes__) for error in failed.value.exceptions] == ["['bikes']"]
    assert counting.counted_to(churn.registered_model) is not None
    with pytest.raises(ExceptionGroup, match="1 of 2 models"):
        tasks.review_models()
    assert DriftReview.objects.get().registered_model.name == "churn"


def test_concurrent_requests_for_one_review_get_the_same(churn: ModelVersion, post: Post) -> None:
    send(post, rows(0, 100))
    model, now = churn.registered_model, timezone.now()
    found: list[int] = []
    at_once(
        *[lambda: found.append(reviews.review(model, now - dt.timedelta(hours=1), now).pk)] * 4  # type: ignore[list-item]
    )
    assert len(found) == 4
    assert set(found) == {DriftReview.objects.get().pk}


# -- asking for a training run -------------------------------------------------------------------------


@pytest.fixture
def drifted(churn: ModelVersion, post: Post) -> ModelVersion:
    """Creates 150 labelled answers to customers unlike the training data."""
    customers = rows(0, 150, **SHIFTED)
    answers = send(post, customers)
    outcomes = [
        {"prediction": answer["id"], "actual": customer["Churn"]}
        for answer, customer in zip(answers, customers, strict=True)
    ]
    assert post(OUTCOMES, outcomes).status_code == 200
    return churn


def due_again(**model: Any) -> int:
    """Makes the scheduled review due, with these settings of the model, and runs beat's task."""
    RegisteredModel.objects.filter(name="churn").update(**model)
    DriftReview.objects.update(created_at=timezone.now() - dt.timedelta(days=2))
    return tasks.review_models()


def test_drift_requests_no_run_unless_the_model_enables_it(drifted: ModelVersion) -> None:
    assert due_again() == 1
    made = DriftReview.objects.get()
    assert (made.verdict, made.run, made.run_note) == ("drift", None, "")
    assert TrainingRun.objects.count() == 1, "only the version's own run exists"
    event = Event.objects.get(kind="drift.found")
    drifting = made.findings.filter(verdict="drift").values_list("column", flat=True)
    assert (event.model, event.subject, event.data["review"]) == ("churn", "version 1", made.pk)
    assert sorted(event.data["columns"]) == sorted(event.data["drifting"]) == sorted(drifting)
    assert due_again() == 1
    assert Event.objects.filter(kind="drift.found").count() == 1, "the next review repeats the finding"


def test_drift_requests_one_run_on_labelled_rows_and_then_pauses(drifted: ModelVersion) -> None:
    assert due_again(retrain_on="drift") == 1
    made = DriftReview.objects.get()
    run = made.run
    assert run is not None
    assert made.run_note == "the review found drift"
    assert (run.mode, run.status, run.requested_by) == ("append", "queued", None)
    assert run.source is not None and run.source["from"] == "outcomes"
    assert due_again() == 1
    assert "is under way" in DriftReview.objects.first().run_note  # type: ignore[union-attr]
    assert run_requests.execute(run.pk)
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    assert run.version.dataset.rows == drifted.dataset.rows + 150
    assert due_again() == 1
    assert "the next may follow from" in DriftReview.objects.first().run_note  # type: ignore[union-attr]
    assert TrainingRun.objects.count() == 2
    assert due_again(retrain_cooldown_hours=0) == 1
    note = DriftReview.objects.first().run_note  # type: ignore[union-attr]
    assert "0 rows since" in note, "rows of the last run are not appended again"


def test_rows_of_a_version_that_was_never_activated_are_appended_again(
    drifted: ModelVersion, post: Post
) -> None:
    RegisteredModel.objects.update(policy="manual")
    assert due_again(retrain_on="drift") == 1
    first = DriftReview.objects.get().run
    assert first is not None
    assert run_requests.execute(first.pk)
    first.refresh_from_db()
    assert (first.status, first.version.status) == ("succeeded", "candidate")
    assert due_again(retrain_cooldown_hours=0) == 1
    note = DriftReview.objects.first().run_note  # type: ignore[union-attr]
    assert "0 rows since" in note, "no outcome has arrived since"
    customers = rows(150, 300, **SHIFTED)
    answers = send(post, customers)
    outcomes = [
        {"prediction": answer["id"], "actual": customer["Churn"]}
        for answer, customer in zip(answers, customers, strict=True)
    ]
    assert post(OUTCOMES, outcomes).status_code == 200
    TrainingRun.objects.filter(pk=first.pk).update(
        source=first.source | {"until": Prediction.objects.order_by("id")[150].at.isoformat()}  # type: ignore[operator]
    )
    assert due_again() == 1
    second = DriftReview.objects.first().run  # type: ignore[union-attr]
    assert second is not None, DriftReview.objects.first().run_note  # type: ignore[union-attr]
    assert run_requests.execute(second.pk)
    second.refresh_from_db()
    assert second.version.dataset.rows == drifted.dataset.rows + 300


def test_too_few_outcomes_request_no_run(churn: ModelVersion, post: Post) -> None:
    send(post, rows(0, 150, **SHIFTED))
    assert due_again(retrain_on="either") == 1
    made = DriftReview.objects.get()
    assert made.run is None
    assert made.run_note.startswith("the review found drift; not requested: 0 rows since")


def test_fallen_quality_requests_a_run(churn: ModelVersion, post: Post) -> None:
    customers = rows(0, 300)
    answers = send(post, customers)
    wrong = [{"prediction": answer["id"], "actual": not answer["prediction"]} for answer in answers]
    assert post(OUTCOMES, wrong).status_code == 200
    assert due_again(retrain_on="quality") == 1
    made = DriftReview.objects.get()
    assert made.quality is not None
    assert [each["fell"] for each in made.quality] == [True]
    assert made.run is not None
    assert made.run_note == "the quality has fallen"
    event = Event.objects.get(kind="quality.fell")
    assert (event.model, event.subject) == ("churn", "version 1")
    assert event.data["high"] < event.data["holdout"]
    assert due_again() == 1
    assert Event.objects.filter(kind="quality.fell").count() == 1


def test_quality_equal_to_the_hold_out_has_not_fallen(churn: ModelVersion, post: Post) -> None:
    customers = rows(0, 400)
    answers = send(post, customers)
    outcomes = [
        {"prediction": answer["id"], "actual": customer["Churn"]}
        for answer, customer in zip(answers, customers, strict=True)
    ]
    assert post(OUTCOMES, outcomes).status_code == 200
    assert due_again(retrain_on="quality") == 1
    made = DriftReview.objects.get()
    assert made.quality is not None
    [found] = made.quality
    assert (found["fell"], found["labelled"], found["coverage"]) == (False, 400, 1.0)
    assert (made.run, made.run_note) == (None, "")
    assert made.expected is not None
    assert json.dumps(made.expected)
    assert Prediction.objects.count() == 400
