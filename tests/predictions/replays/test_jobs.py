"""Replays: the log scored with another version, by real workers' code, and nothing else changed by it."""

from __future__ import annotations

import csv
import datetime as dt
import re
import time
from collections import Counter
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from core.uuid7 import LAST, lowest_at
from predictions.models import Prediction, Replay
from predictions.replays import jobs as replays
from tests.conftest import Post, assert_error, at_once, keyed, new_ids
from tests.predictions.admin.test_log import answered
from tests.trained import SAMPLES, train_sample
from training import artifacts
from training.jobs import leases
from training.models import ModelVersion, RegisteredModel, TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)


def rows_of(name: str, version: ModelVersion, start: int, count: int) -> list[dict[str, Any]]:
    """Rows of a sample file, as JSON values, with the target."""
    schema = version.dataset_schema
    with (SAMPLES / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
        raw = list(csv.DictReader(stream))[start : start + count]
    found = [schema.read(row, with_target=True, text=True) for row in raw]
    return [row.values | {schema.target.name: row.target} for row in found]  # type: ignore[union-attr]


def request_replay(post: Post, version: ModelVersion, **window: Any) -> tuple[str, Any]:
    """(address, answer) of a replay of the last hour."""
    since = (timezone.now() - dt.timedelta(hours=1)).isoformat()
    address = f"/api/v1/models/{version.registered_model.name}/versions/{version.number}/replays/"
    response = post(address, {"since": since} | window)
    assert response.status_code == 202, response.content
    return response.headers["Location"], response.json()


def done(api: APIClient, post: Post, version: ModelVersion, **window: Any) -> dict[str, Any]:
    """The finished replay of the last hour."""
    address, replay_body = request_replay(post, version, **window)
    assert replay_body["status"] == "queued"
    assert leases.execute(Replay, replay_body["id"])
    body: dict[str, Any] = api.get(address).json()
    assert body["status"] == "succeeded", body["error"]
    return body


def test_a_candidate_is_compared_with_the_logged_answers(
    churn: ModelVersion, post: Post, api: APIClient
) -> None:
    candidate = train_sample("churn", rows=300, activate=False)
    sent = rows_of("churn", churn, 700, 120)
    answers = post("/api/v1/models/churn/predictions/", sent).json()["predictions"]
    known = [
        {"prediction": answer["id"], "actual": not row["churn"]}
        for answer, row in zip(answers[:60], sent, strict=False)
    ]
    right = [{"prediction": item["prediction"], "actual": not item["actual"]} for item in known]
    assert post("/api/v1/models/churn/outcomes/", known).json()["recorded"] == 60
    assert post("/api/v1/models/churn/outcomes/", right).json()["corrected"] == 60
    log_before = list(Prediction.objects.order_by("id").values())

    body = done(api, post, candidate)
    scores = artifacts.load(candidate).predict(
        [{name: row[name] for name in candidate.dataset_schema.names} for row in sent]
    )
    assert scores.probabilities is not None
    assert candidate.threshold is not None
    new = [probability[1] for probability in scores.probabilities]
    labels = [probability >= candidate.threshold for probability in new]
    result = body["result"]
    assert (body["rows"], body["percent"], result["rows"], result["answered"]) == (120, 100, 120, 120)
    changed = sum(answer["prediction"] != label for answer, label in zip(answers, labels, strict=True))
    assert changed > 0, "the two versions would have to differ for this test to say anything"
    assert result["changed"] == changed
    moves = Counter((answer["prediction"], label) for answer, label in zip(answers, labels, strict=True))
    assert {(move["before"], move["after"]): move["rows"] for move in result["transitions"]} == moves
    assert result["mean_before"] == pytest.approx(sum(answer["probability"] for answer in answers) / 120)
    assert result["mean_after"] == pytest.approx(sum(new) / 120)
    differences = sorted(
        (abs(answer["probability"] - now) for answer, now in zip(answers, new, strict=True)), reverse=True
    )
    assert [row["difference"] for row in result["worst"]] == pytest.approx(differences[:50])
    worst = next(at for at, answer in enumerate(answers) if answer["id"] == result["worst"][0]["id"])
    assert result["worst"][0]["inputs"] == {name: sent[worst][name] for name in churn.dataset_schema.names}
    assert result["unreadable"] == {}
    assert [(part["version"], part["rows"]) for part in result["versions"]] == [(churn.number, 120)]

    assert (result["outcomes"]["rows"], result["outcomes"]["coverage"]) == (60, 0.5)
    truth = [row["churn"] for row in sent[:60]]
    for side, predicted in (("before", [answer["prediction"] for answer in answers]), ("after", labels)):
        right_ones = sum(one == other for one, other in zip(truth, predicted, strict=False))
        assert result["outcomes"][side]["accuracy"] == pytest.approx(right_ones / 60)
    assert list(Prediction.objects.order_by("id").values()) == log_before, "nothing enters the log"


def test_the_same_version_changes_nothing_and_the_window_is_half_open(
    churn: ModelVersion, post: Post, api: APIClient
) -> None:
    sent = rows_of("churn", churn, 700, 30)
    for _ in range(2):
        post("/api/v1/models/churn/predictions/", sent)
    moments = [row.at for row in Prediction.objects.order_by("id")]
    middle = moments[30]
    assert moments[29] < middle
    result = done(api, post, churn, since=middle.isoformat())["result"]
    assert result["rows"] == 30
    assert (result["changed"], result["worst"], result["shift"]["ks"]) == (0, [], 0.0)
    assert done(api, post, churn, until=middle.isoformat())["result"]["rows"] == 30
    long_ago = {"since": "2020-01-01", "until": "2020-01-02"}
    result = done(api, post, churn, **long_ago)["result"]
    assert (result["rows"], result["mean_before"], result["outcomes"]["rows"]) == (0, None, 0)


def test_a_regression_is_replayed_by_either_engine(db: None, post: Post, api: APIClient) -> None:
    logging = train_sample("houses", rows=150)
    compiled = train_sample("houses", rows=180, activate=False)
    plain = train_sample("houses", rows=180, activate=False, engine="sklearn")
    sent = rows_of("houses", logging, 500, 40)
    target = logging.dataset_schema.target.name
    answers = post("/api/v1/models/houses/predictions/", sent).json()["predictions"]
    known = [
        {"prediction": answer["id"], "actual": row[target]} for answer, row in zip(answers, sent, strict=True)
    ]
    assert post("/api/v1/models/houses/outcomes/", known).json()["recorded"] == 40
    results = [done(api, post, version)["result"] for version in (compiled, plain)]
    names = logging.dataset_schema.names
    scores = artifacts.load(plain).predict([{name: row[name] for name in names} for row in sent])
    new = [float(value) for value in scores.values]
    old = [answer["prediction"] for answer in answers]
    errors = [abs(value - row[target]) for value, row in zip(new, sent, strict=True)]
    for result in results:
        assert (result["answered"], result["of"], result["transitions"]) == (40, "value", [])
        beyond = sum(abs(now - then) / then > 0.05 for now, then in zip(new, old, strict=True))
        assert result["beyond"]["0.05"] == pytest.approx(beyond / 40)
        assert result["mean_after"] == pytest.approx(sum(new) / 40, rel=1e-5)
        assert sum(result["shift"]["before"]) == sum(result["shift"]["after"]) == 40
        assert result["outcomes"]["after"]["mae"] == pytest.approx(sum(errors) / 40, rel=1e-5)
        assert result["outcomes"]["before"]["mae"] != result["outcomes"]["after"]["mae"]


def test_rows_of_another_schema_are_validated_again_or_counted(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any]
) -> None:
    """The log holds rows of a version whose columns stood in another order and allowed more."""
    schema = churn.dataset_schema.to_json()
    columns = [column for column in reversed(schema["columns"]) if column["name"] != "tenure"]
    for column in columns:
        if column["name"] == "contract":
            column["levels"] = [*column["levels"], "weekly"]
    columns.insert(3, {"name": "tenure", "type": "number"})
    other = train_sample(
        "churn",
        rows=600,
        activate=False,
        schema=schema | {"columns": columns},
        schema_sha256="0" * 64,
    )
    names = [column["name"] for column in columns]

    def cells(**changed: Any) -> list[Any]:
        return [(customer | changed)[name] for name in names]

    answered(other, cells=cells(), probability=0.5)
    answered(other, cells=cells(tenure=2.0), probability=0.5)
    answered(other, 2, cells=cells(contract="weekly"), probability=0.5)
    answered(other, cells=cells(tenure=2.5), probability=0.5)
    answered(churn, cells=[customer[name] for name in churn.dataset_schema.names], probability=0.5)
    body = done(api, post, churn)
    result = body["result"]
    assert (result["rows"], result["answered"]) == (6, 3)
    assert result["unreadable"] == {"not_a_level: contract": 2, "not_an_integer: tenure": 1}
    parts = {part["version"]: (part["rows"], part["unreadable"]) for part in result["versions"]}
    assert parts == {churn.number: (1, 0), other.number: (5, 3)}
    scores = artifacts.load(churn).predict([customer, customer, customer | {"tenure": 2}])
    assert scores.probabilities is not None
    expected = sorted(abs(each[1] - 0.5) for each in scores.probabilities)
    assert sorted(row["difference"] for row in result["worst"]) == pytest.approx(expected)


def test_the_log_is_read_in_pieces(
    churn: ModelVersion, post: Post, api: APIClient, monkeypatch: pytest.MonkeyPatch, customer: dict[str, Any]
) -> None:
    monkeypatch.setattr(replays, "CHUNK", 7)
    cells = [customer[name] for name in churn.dataset_schema.names]
    answered(churn, 30, cells=cells)
    seen: list[tuple[str, int, int]] = []
    report = leases.Lease.report

    def noted(self: Any, stage: str, percent: int, **fields: Any) -> None:
        seen.append((stage, percent, fields["rows"]))
        report(self, stage, percent, **fields)

    monkeypatch.setattr(leases.Lease, "report", noted)
    assert done(api, post, churn)["result"]["rows"] == 30
    assert [rows for stage, _, rows in seen if stage.startswith("scoring")] == [7, 14, 21, 28, 30]
    percents = [percent for _, percent, _ in seen]
    assert percents == sorted(percents)
    assert percents[-2] == 98


def test_a_replay_is_cancelled_between_two_pieces(
    churn: ModelVersion, post: Post, api: APIClient, monkeypatch: pytest.MonkeyPatch, customer: dict[str, Any]
) -> None:
    monkeypatch.setattr(replays, "CHUNK", 5)
    answered(churn, 20, cells=[customer[name] for name in churn.dataset_schema.names])
    address, replay_body = request_replay(post, churn)
    take = replays._Work.take

    def interrupted(self: Any, rows: Any) -> None:
        take(self, rows)
        if self.accumulator.rows == 10:
            assert post(f"{address}cancel/", {}).json()["status"] == "running"

    monkeypatch.setattr(replays._Work, "take", interrupted)
    assert leases.execute(Replay, replay_body["id"])
    body = api.get(address).json()
    assert (body["status"], body["rows"], body["result"]) == ("cancelled", 10, None)
    assert_error(post(f"{address}cancel/", {}), 409, "already_finished")
    address, replay_body = request_replay(post, churn)
    assert post(f"{address}cancel/", {}).json()["status"] == "cancelled"
    assert not leases.execute(Replay, replay_body["id"])


def test_a_replay_starts_over_after_its_process_died(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any]
) -> None:
    answered(churn, 3, cells=[customer[name] for name in churn.dataset_schema.names])
    address, replay_body = request_replay(post, churn)
    past = timezone.now() - dt.timedelta(seconds=1)
    lease = leases.claim(Replay, replay_body["id"])
    assert lease is not None
    Replay.objects.filter(pk=replay_body["id"]).update(lease_until=past, rows=2)
    assert ("predictions.replay", replay_body["id"]) in leases.waiting()
    assert leases.execute(Replay, replay_body["id"])
    body = api.get(address).json()
    assert (body["status"], body["attempts"], body["rows"]) == ("succeeded", 2, 3)


def test_a_version_that_cannot_be_loaded_fails_the_replay_with_a_reason(
    churn: ModelVersion, post: Post, api: APIClient
) -> None:
    broken = train_sample(
        "churn", rows=600, activate=False, artifact_sha256="0" * 64, compiled_sha256="0" * 64
    )
    address, replay_body = request_replay(post, broken)
    assert leases.execute(Replay, replay_body["id"])
    body = api.get(address).json()
    assert body["status"] == "failed"
    assert "not in the store" in body["error"]


def test_inputs_need_the_right_to_read_the_log(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any]
) -> None:
    answered(churn, cells=[customer[name] for name in churn.dataset_schema.names], probability=0.99)
    address, replay_body = request_replay(post, churn)
    assert leases.execute(Replay, replay_body["id"])
    trainer = User.objects.create_user("trainer")
    trainer.user_permissions.add(Permission.objects.get(codename="train"))
    assert keyed(trainer).get(address).json()["result"]["worst"] == []
    assert api.get(address).json()["result"]["worst"][0]["inputs"] == customer
    reader = User.objects.create_user("reader")
    reader.user_permissions.add(Permission.objects.get(codename="read_log"))
    listing = re.sub(r"\d+/$", "", address)
    assert_error(keyed(reader).post(listing, {}, format="json"), 403, "forbidden")
    assert_error(keyed(reader).post(f"{address}cancel/", {}, format="json"), 403, "forbidden")
    assert "result" not in keyed(reader).get(listing).json()[0]


def test_an_invalid_window_is_refused(churn: ModelVersion, post: Post, api: APIClient) -> None:
    address = "/api/v1/models/churn/versions/1/replays/"
    cases: list[tuple[Any, str]] = [
        ({"since": "yesterday"}, "not_a_time"),
        ({"since": "2026-01-02", "until": "2026-01-01"}, "out_of_bounds"),
        ({"since": "2999-01-01"}, "out_of_bounds"),
        ({"from": "2026-01-01"}, "unknown_field"),
        ({"\ud800": 1}, "unknown_field"),
        ({"until": "0001-01-01T00:00:00Z"}, "out_of_bounds"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "not_a_time"),
        ([], "not_an_object"),
    ]
    for body, code in cases:
        error = assert_error(post(address, body), 400, "invalid_input")
        assert [fault["code"] for fault in error["details"]] == [code]
    assert_error(post(address.replace("/1/", "/9/"), {}), 404, "unknown_version")
    assert_error(api.get(f"{address}77/"), 404, "not_found")
    replay_body = post(address, {}).json()
    assert dt.datetime.fromisoformat(replay_body["until"]) - dt.datetime.fromisoformat(
        replay_body["since"]
    ) == dt.timedelta(7)
    waited = post(address, {}, Prefer="wait=0")
    assert (waited.status_code, waited.headers["Preference-Applied"]) == (202, "wait=0")


def test_a_client_may_wait_for_the_result(churn: ModelVersion, post: Post, customer: dict[str, Any]) -> None:
    answered(churn, 3, cells=[customer[name] for name in churn.dataset_schema.names])
    answers: list[Any] = []

    def work() -> None:
        until = time.monotonic() + 20
        while not answers and time.monotonic() < until:
            for replay_id in Replay.objects.filter(status="queued").values_list("pk", flat=True):
                leases.execute(Replay, replay_id)
            time.sleep(0.05)

    def wait() -> None:
        answers.append(post("/api/v1/models/churn/versions/1/replays/", {}, Prefer="wait=20"))

    at_once(work, wait)
    assert (answers[0].status_code, answers[0].json()["result"]["answered"]) == (201, 3)
    assert answers[0].headers["Preference-Applied"] == "wait=20"


# -- training from outcomes ----------------------------------------------------------------------------

RUNS = "/api/v1/models/churn/training-runs/"


def trained(api: APIClient, post: Post, body: dict[str, Any]) -> dict[str, Any]:
    response = post(RUNS, body)
    assert response.status_code == 202, response.content
    assert leases.execute(TrainingRun, response.json()["id"])
    found: dict[str, Any] = api.get(response.headers["Location"]).json()
    return found


def test_a_version_is_trained_from_outcomes(churn: ModelVersion, post: Post, api: APIClient) -> None:
    from vigia_ml.fitting import parquet

    sent = rows_of("churn", churn, 600, 200)
    answers = post("/api/v1/models/churn/predictions/", sent).json()["predictions"]
    known = [
        {"prediction": answer["id"], "actual": row["churn"]}
        for answer, row in zip(answers[:150], sent, strict=False)
    ]
    wrong = [row | {"actual": not row["actual"]} for row in known[:40]]
    post("/api/v1/models/churn/outcomes/", wrong)
    post("/api/v1/models/churn/outcomes/", known)
    body = trained(api, post, {"from": "outcomes", "since": "2026-01-01", "mode": "replace"})
    assert body["status"] == "succeeded", body["error"]
    assert body["dataset"]["rows"] == 150
    assert body["source"]["since"] == "2026-01-01T00:00:00+00:00"
    made = ModelVersion.objects.select_related("dataset").get(run=body["id"])
    assert made.dataset.schema_sha256 == churn.schema_sha256
    with artifacts.dataset_file(made.dataset) as path:
        frame = parquet.read_frame(path, churn.dataset_schema)
    assert frame["churn"].astype(bool).tolist() == [row["churn"] for row in sent[:150]]
    assert frame["tenure"].tolist() == [row["tenure"] for row in sent[:150]]
    assert frame["contract"].tolist() == [row["contract"] for row in sent[:150]]
    appended = trained(api, post, {"from": "outcomes"})
    assert appended["dataset"]["rows"] == 750, "the active version's rows and these"


def test_logged_rows_of_an_earlier_schema_are_validated_again(
    churn: ModelVersion, post: Post, api: APIClient, customer: dict[str, Any]
) -> None:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from training.runs import row_sources
    from training.runs.uploads import declared_schema
    from vigia_ml.fitting import parquet

    schema = churn.dataset_schema.to_json()
    columns = [*reversed(schema["columns"]), {"name": "shoe_size", "type": "number"}]
    other = train_sample(
        "churn", rows=600, activate=False, schema=schema | {"columns": columns}, schema_sha256="0" * 64
    )
    values = churn.dataset_schema.read(customer).values  # type: ignore[union-attr]
    cells = [(values | {"shoe_size": 43.0})[column["name"]] for column in columns]
    rows = [
        *answered(other, 2, cells=cells, key="c7"),
        *answered(churn, cells=list(values.values())),
    ]
    post("/api/v1/models/churn/outcomes/", [{"prediction": str(row.pk), "actual": True} for row in rows])
    today = declared_schema(churn.registered_model)
    source = row_sources.checked({"from": "outcomes"})
    with TemporaryDirectory() as directory:
        path = Path(directory) / "rows.parquet"
        written = row_sources.of(source).collect(churn.registered_model, today, source, path)
        frame = parquet.read_frame(written.path, today)
    assert written.rows == 3
    assert frame["tenure"].tolist() == [customer["tenure"]] * 3
    assert frame["gender"].tolist() == [customer["gender"]] * 3
    bad = [None if column["name"] == "gender" else cell for column, cell in zip(columns, cells, strict=True)]
    [row] = answered(other, cells=bad)
    post("/api/v1/models/churn/outcomes/", {"prediction": str(row.pk), "actual": True})
    body = trained(api, post, {"from": "outcomes"})
    assert body["status"] == "failed"
    assert "do not fit today's schema: gender must not be null" in body["error"]


def test_a_run_without_outcomes_fails_with_a_reason(churn: ModelVersion, post: Post, api: APIClient) -> None:
    body = trained(api, post, {"from": "outcomes", "until": "2026-01-01T00:00:00Z"})
    assert body["status"] == "failed"
    assert body["error"].startswith("no prediction of churn made between the beginning and 2026-01-01")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"since": 3}, "not_a_time"),
        ({"until": "soon"}, "not_a_time"),
        ({"since": "2026-01-02", "until": "2026-01-01"}, "out_of_bounds"),
    ]
    for more, code in cases:
        error = assert_error(post(RUNS, {"from": "outcomes"} | more), 400, "invalid_input")
        assert error["details"][0]["code"] == code
    assert_error(post(RUNS, {"from": "nowhere"}), 400, "invalid_input")


# -- the admin -----------------------------------------------------------------------------------------


def test_a_replay_is_requested_and_shown_in_the_admin(
    churn: ModelVersion, post: Post, client: Client, customer: dict[str, Any]
) -> None:
    client.force_login(User.objects.create_superuser("boss"))
    cells = [customer[name] for name in churn.dataset_schema.names]
    rows = answered(churn, 3, cells=cells, probability=0.01, prediction=False)
    post("/api/v1/models/churn/outcomes/", [{"prediction": str(row.pk), "actual": True} for row in rows[:2]])
    page = client.get(reverse("admin:training_modelversion_change", args=[churn.pk])).content.decode()
    ask_address = reverse("admin:predictions_replay_ask", args=[churn.pk])
    assert ask_address in page
    shown = client.get(ask_address)
    assert str(shown.context["count"]) == "3"
    counted = client.get(
        ask_address, {"since": "2026-01-01T00:00", "until": "2026-01-02T00:00", "count": "1"}
    )
    assert str(counted.context["count"]) == "0"
    window = shown.context["form"].initial
    backwards = client.post(ask_address, {"since": window["until"], "until": window["since"]})
    assert "must be before the end" in backwards.content.decode()
    assert not Replay.objects.exists()
    made = client.post(ask_address, window)
    replay = Replay.objects.get()
    address = reverse("admin:predictions_replay_change", args=[replay.pk])
    assert made.headers["Location"] == address
    waiting = client.get(address).content.decode()
    assert 'hx-trigger="every 1s"' in waiting
    assert "Cancel the replay" in waiting
    assert leases.execute(Replay, replay.pk)
    finished_page = client.get(address)
    assert finished_page.context["matrix"] == {
        "labels": [False, True],
        "lines": [(False, [(0, True), (3, False)]), (True, [(0, False), (0, True)])],
    }
    finished = finished_page.content.decode()
    for expected in (
        "Labels changed",
        "Answers: logged and by this version",
        "accuracy",
        str(rows[0].pk),
    ):
        assert expected in finished
    assert "hx-trigger" not in finished.split('id="vg-run"')[1].split(">")[0]
    assert "monthlycharges" in finished
    assert client.get("/admin/predictions/replay/").status_code == 200


def test_a_user_without_rights_requests_no_replay_and_sees_no_inputs(
    churn: ModelVersion, client: Client, customer: dict[str, Any]
) -> None:
    cells = [customer[name] for name in churn.dataset_schema.names]
    answered(churn, cells=cells, probability=0.01)
    now = timezone.now()
    replay = replays.request(churn, now - dt.timedelta(hours=1), now, by=None)
    other = replays.request(churn, now - dt.timedelta(hours=1), now, by=None)
    assert leases.execute(Replay, replay.pk)
    clerk = User.objects.create_user("clerk", is_staff=True)
    group = Group.objects.create(name="predictors")
    group.permissions.add(Permission.objects.get(codename="predict"))
    clerk.groups.add(group)
    client.force_login(clerk)
    page = client.get(reverse("admin:predictions_replay_change", args=[replay.pk])).content.decode()
    assert "Labels changed" in page
    assert "monthlycharges" not in page
    assert client.get(reverse("admin:predictions_replay_ask", args=[churn.pk])).status_code == 403
    cancel = reverse("admin:predictions_replay_cancel", args=[other.pk])
    assert client.post(cancel).status_code == 403
    group.permissions.add(Permission.objects.get(codename="train"))
    client.force_login(User.objects.get(pk=clerk.pk))
    assert client.post(cancel).status_code == 302
    other.refresh_from_db()
    assert (other.status, other.cancelled_by) == ("cancelled", clerk)
    assert RegisteredModel.objects.filter(pk=other.registered_model_id).exists()


def test_a_long_window_is_counted_to_a_cap(churn: ModelVersion, customer: dict[str, Any]) -> None:
    cells = [customer[name] for name in churn.dataset_schema.names]
    with transaction.atomic():
        answered(churn, ids=new_ids(12), cells=cells)
    hour = timezone.now() - dt.timedelta(hours=1)
    later = timezone.now() + dt.timedelta(hours=1)
    assert str(replays.rows_in(churn.registered_model, hour, later)) == "12"


def test_a_piece_of_the_log_is_read_in_the_order_of_an_index(churn: ModelVersion) -> None:
    answered(churn, 50)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_bitmapscan = off")
        given = [churn.registered_model_id, str(lowest_at(timezone.now() - dt.timedelta(1))), str(LAST), 10]
        cursor.execute(f"EXPLAIN {replays._PIECE}", given)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Index Scan" in plan
    assert "Sort" not in plan.replace("Sort Key: log.id", "").replace("Sort Key: log_1.id", ""), plan
