"""The route of pushes: rights, manifests, bodies, retries, and a pushed model's whole life over HTTP."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.test import Client
from rest_framework.test import APIClient

from predictions.models import Prediction
from predictions.rollouts import shadow_worker
from predictions.rollups import counting
from tests.conftest import Staff, assert_error, at_once, keyed
from tests.pushed import Package, execute, penguins, staged
from training.jobs import leases
from training.models import (
    Comparison,
    GroupScope,
    ModelVersion,
    RegisteredModel,
    StoredUpload,
    TrainingRun,
)
from training.runs import manifests
from training.runs import requests as run_requests
from vigia_ml.schema import InvalidRows

ADDRESS = "/api/v1/models/penguins/versions/"
pytestmark = pytest.mark.django_db


def client(*rights: str, only: RegisteredModel | None = None) -> APIClient:
    """Returns a client with rights by a group, limited to one model if given."""
    user = User.objects.create_user(f"client{User.objects.count()}")
    group = Group.objects.create(name=f"group of {user.username}")
    group.permissions.set(Permission.objects.filter(codename__in=rights))
    user.groups.add(group)
    if only is not None:
        GroupScope.objects.create(group=group).registered_models.add(only)
    return keyed(user)


# -- rights --------------------------------------------------------------------------------------------


def test_a_push_needs_its_right_and_a_new_model_the_right_for_all_models(
    package: Package, churn: ModelVersion
) -> None:
    assert_error(package.send(APIClient(), "penguins"), 401, "not_authenticated")
    error = assert_error(package.send(client("train", "activate"), "penguins"), 403, "forbidden")
    assert "no model is called 'penguins'" in error["message"]
    scoped = client("push", only=churn.registered_model)
    assert_error(package.send(scoped, "penguins"), 403, "forbidden")
    assert not RegisteredModel.objects.filter(name="penguins").exists()
    package.send(client("push"), "penguins")
    assert_error(package.send(scoped, "penguins"), 403, "forbidden")
    own = client("push", only=RegisteredModel.objects.get(name="penguins"))
    assert package.send(own, "penguins").status_code == 202
    assert TrainingRun.objects.filter(origin="pushed").count() == 2


def test_only_a_client_that_may_activate_asks_for_an_activation(package: Package) -> None:
    package.manifest["activation_reason"] = "first"
    error = assert_error(package.send(client("push"), "penguins"), 403, "forbidden")
    assert "'activate'" in error["message"]
    assert staged() == []
    run = execute(package.send(client("push", "activate"), "penguins"))
    assert (run.status, run.version.status) == ("succeeded", "active")
    assert run.version.activations.get().reason == "first"


def test_a_withdrawn_right_to_activate_counts_at_the_end_of_the_run(package: Package) -> None:
    package.manifest["activation_reason"] = "first"
    answer = package.send(client("push", "activate"), "penguins")
    pusher = TrainingRun.objects.get().requested_by
    assert pusher is not None
    pusher.groups.clear()
    pusher.user_permissions.clear()
    run = execute(answer)
    assert (run.status, run.version.status) == ("succeeded", "candidate")
    assert "does not have the right to activate" in run.stage


@pytest.mark.parametrize("policy", ["always", "if_better"])
def test_a_policy_activates_no_push_of_a_client_that_may_not_activate(package: Package, policy: str) -> None:
    execute(package.send(client("push"), "penguins"))
    RegisteredModel.objects.filter(name="penguins").update(policy=policy)
    run = execute(package.send(client("push"), "penguins"))
    assert (run.status, run.version.status) == ("succeeded", "candidate")
    assert "the user who pushed it does not have the right to activate" in run.stage
    run = execute(package.send(client("push", "activate"), "penguins"))
    assert (run.status, run.version.status) == ("succeeded", "active")


def test_names_of_other_models_and_of_the_service_are_refused(api: APIClient, package: Package) -> None:
    error = assert_error(package.send(api, "movies"), 409, "unsupported_for_model")
    assert "movies does not support pushed versions" in error["message"]
    for name in ("names", "list", "class", "Penguins", "_penguins", "9lives", "a" * 51, "pingüinos"):
        error = assert_error(package.send(api, name), 400, "invalid_input")
        assert error["details"][0]["code"] == "bad_name", name
    assert not TrainingRun.objects.exists()


def test_a_get_of_a_model_that_does_not_exist_stays_404(api: APIClient) -> None:
    assert_error(api.get(ADDRESS), 404, "unknown_model")


# -- bodies --------------------------------------------------------------------------------------------


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(api: APIClient, package: Package) -> None:
    from training.views.versions import VersionsView

    size, VersionsView.max_bytes = VersionsView.max_bytes, 1_000
    try:
        error = assert_error(package.send(api, "penguins"), 413, "too_large")
        assert "accepted: at most 1,000" in error["message"]
    finally:
        VersionsView.max_bytes = size


def test_the_files_of_a_body_leave_the_disk_its_reserve(
    api: APIClient, package: Package, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings.STORE_RESERVE_BYTES = shutil.disk_usage("/").total
    written = tmp_path / "written"
    written.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(written))
    monkeypatch.setattr(TemporaryFileUploadHandler, "receive_data_chunk", lambda *_: pytest.fail("written"))
    assert_error(package.send(api, "penguins"), 503, "store_unavailable")
    assert staged() == []


def test_missing_unknown_and_repeated_parts_are_all_named(api: APIClient, package: Package) -> None:
    answered = package.send(api, "penguins", without=["train", "answers"])
    assert_details(answered, ("train", "missing_field"), ("answers", "missing_field"))
    assert_details(package.send(api, "penguins", without=["manifest"]), ("manifest", "missing_field"))
    parts = {"manifest": [package.describe()] * 2, "graph": "text", "pickle": "x"}
    answered = api.post(ADDRESS, parts, format="multipart")
    assert_details(
        answered,
        ("manifest", "duplicate_field"),
        ("pickle", "unknown_field"),
        ("graph", "not_a_file"),
    )
    assert staged() == []


def assert_details(answered: Any, *expected: tuple[str, str]) -> None:
    error = assert_error(answered, 400, "invalid_input")
    found = {(each.get("field"), each["code"]) for each in error["details"]}
    assert found == set(expected), error


def test_a_truncated_multipart_body_is_refused_in_words(api: APIClient, package: Package) -> None:
    boundary = "BoUnDaRyStRiNg"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="manifest"\r\n\r\n{package.describe()}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="graph"; filename="g"\r\n\r\n'
    ).encode()
    cut = head + package.file("graph").read_bytes()[:500]
    whole: Any = cut  # a form is bytes
    answered = api.generic("POST", ADDRESS, whole, content_type=f"multipart/form-data; boundary={boundary}")
    error = assert_error(answered, 400, "invalid_input")
    assert {each["field"] for each in error["details"]} == {"graph", "train", "holdout", "answers"}
    no_boundary = api.generic("POST", ADDRESS, whole, content_type="multipart/form-data")
    assert_error(no_boundary, 400, "malformed")
    assert_error(api.post(ADDRESS, {"format": 1}, format="json"), 415, "unsupported_media_type")
    assert staged() == []


def test_a_file_that_is_not_the_one_of_the_manifest_is_refused(api: APIClient, package: Package) -> None:
    package.describe()
    sent = {"graph": package.manifest["files"]["graph"] | {"sha256": "0" * 64}}
    described = json.dumps(package.manifest | {"files": package.manifest["files"] | sent})
    package.describe = lambda: described  # type: ignore[method-assign]
    error = assert_error(package.send(api, "penguins"), 400, "invalid_input")
    [detail] = error["details"]
    assert (detail["field"], detail["code"]) == ("graph", "wrong_digest")
    assert "the manifest says" in detail["message"]
    assert staged() == []
    assert not RegisteredModel.objects.filter(name="penguins").exists()


# -- manifests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "field", "code"),
    [
        (["format"], 2, "format", "invalid"),
        (["task"], "clustering", "task", "invalid"),
        (["task"], "regression", "task", "invalid"),
        (["classes"], None, "classes", "invalid"),
        (["classes"], ["Adelie"], "classes", "invalid"),
        (["classes"], ["Adelie", "Adelie", "Gentoo"], "classes", "invalid"),
        (["classes"], ["Adelie", 7], "classes[1]", "invalid"),
        (["threshold"], 0.5, "threshold", "invalid"),
        (["threshold"], 1.5, "threshold", "invalid"),
        (["primary_metric"], "rmse", "task", "invalid"),
        (["title"], "a" * 201, "title", "invalid"),
        (["title"], "a\0b", "manifest.title", "bad_text"),
        (["title"], 7, "title", "invalid"),
        (["secret"], 1, "secret", "unknown_field"),
        (["libraries"], {"numpy": 2}, "libraries[...]", "invalid"),
        (["schema"], [], "schema", "not_an_object"),
        (["schema", "columns"], [], "schema.columns", "not_an_array"),
        (["schema", "columns", 0, "type"], "blob", "schema.columns[0].type", "invalid"),
        (["schema", "columns", 0, "name"], "_bill", "schema.columns[0]", "invalid"),
        (["schema", "columns", 0, "code"], "x", "schema.columns[0].code", "unknown_field"),
        (["schema", "columns", 0, "minimum"], 1e999, "manifest.schema.columns[0].minimum", "not_finite"),
        (["schema", "columns", 0, "max_length"], 0, "schema.columns[0].max_length", "out_of_bounds"),
        (["schema", "columns", 0, "name"], "species", "schema", "invalid"),
        (["schema", "columns", 2, "levels"], ["a", "a"], "schema.columns[2].levels", "invalid"),
        (["schema", "target", "type"], "text", "task", "invalid"),
        (["schema", "key"], 7, "schema.key", "invalid"),
        (["files", "graph", "sha256"], "../../etc/passwd", "files.graph.sha256", "invalid"),
        (["files", "graph", "size"], -1, "files.graph.size", "invalid"),
        (["files", "extra"], {"sha256": "0" * 64, "size": 1}, "files", "invalid"),
        (["parity"], {"passed": True}, "parity", "invalid"),
    ],
)
def test_each_fault_of_a_manifest_is_named(
    package: Package, path: list[Any], value: Any, field: str, code: str
) -> None:
    plain = json.loads(package.describe())
    inner = plain
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(InvalidRows) as caught:
        manifests.read(json.dumps(plain).encode())
    assert [(fault.field, fault.code) for fault in caught.value.faults] == [(field, code)]


def test_all_faults_of_a_manifest_come_together(api: APIClient, package: Package) -> None:
    package.manifest |= {"title": 7, "unknown": 1, "threshold": "half"}
    package.manifest["schema"]["columns"][0]["type"] = "blob"
    package.manifest["schema"]["columns"][1]["nullable"] = "no"
    del package.manifest["task"]
    error = assert_error(package.send(api, "penguins"), 400, "invalid_input")
    assert error["message"] == "the manifest is invalid"
    assert {each["field"] for each in error["details"]} == {
        "title", "unknown", "threshold", "task", "schema.columns[0].type", "schema.columns[1].nullable",
    }  # fmt: skip


def test_a_manifest_is_json_by_the_letter(api: APIClient, package: Package) -> None:
    text = package.describe()
    for sent, code in (
        ("{", "invalid_json"),
        ("[" * 100_000, "too_deep"),
        ("[]", "invalid_input"),
        (text.replace('"format": 1', '"format": 1, "format": 1'), "invalid_input"),
        ("x" * (manifests.LARGEST + 1), "invalid_input"),
    ):
        package.describe = lambda sent=sent: sent  # type: ignore[misc, method-assign]
        assert_error(package.send(api, "penguins"), 400, code)
    assert staged() == []


# -- retries -------------------------------------------------------------------------------------------


def test_a_push_sent_again_with_its_key_is_one_run(api: APIClient, package: Package) -> None:
    first = package.send(api, "penguins", **{"Idempotency-Key": "monday"})
    again = package.send(api, "penguins", **{"Idempotency-Key": "monday"})
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (again.json(), again.headers["Location"]) == (first.json(), first.headers["Location"])
    assert TrainingRun.objects.count() == 1
    assert len(staged()) == 1
    package.manifest["title"] = "Other penguins"
    assert_error(
        package.send(api, "penguins", **{"Idempotency-Key": "monday"}), 409, "idempotency_key_reused"
    )
    assert len(staged()) == 1


@pytest.mark.django_db(transaction=True)
def test_concurrent_pushes_of_a_new_name_make_one_model(client_user: User, tmp_path: Path) -> None:
    packages = [Package(tmp_path / str(seed), seed=seed) for seed in range(4)]
    clients = [keyed(client_user) for _ in packages]
    answers: list[Any] = []

    def send(place: int) -> None:
        answers.append(packages[place].send(clients[place], "penguins"))

    at_once(*[partial(send, place) for place in range(4)])
    assert [answered.status_code for answered in answers] == [202] * 4
    assert RegisteredModel.objects.filter(name="penguins").count() == 1
    for answered in answers:
        assert run_requests.execute(answered.json()["id"])
    assert sorted(ModelVersion.objects.values_list("number", flat=True)) == [1, 2, 3, 4]


@pytest.mark.django_db(transaction=True)
def test_concurrent_pushes_with_one_key_make_one_run(client_user: User, package: Package) -> None:
    clients = [keyed(client_user) for _ in range(3)]
    package.describe()
    answers: list[Any] = []

    def send(client: APIClient) -> None:
        answers.append(package.send(client, "penguins", **{"Idempotency-Key": "once"}))

    at_once(*[partial(send, each) for each in clients])
    assert {answered.status_code for answered in answers} == {202}
    assert len({answered.json()["id"] for answered in answers}) == 1
    assert TrainingRun.objects.count() == 1
    assert len(staged()) == 1


# -- pages and life ------------------------------------------------------------------------------------


def test_the_browsable_page_of_versions_renders(api: APIClient, package: Package, client_user: User) -> None:
    execute(package.send(api, "penguins"))
    browser = Client()
    browser.force_login(client_user)
    page = browser.get(ADDRESS, headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "pushed" in page.content.decode()
    assert "<textarea" not in page.content.decode(), "nobody writes a push by hand"


def test_a_browser_session_pushes_only_with_its_csrf_token(package: Package, client_user: User) -> None:
    browser = APIClient(enforce_csrf_checks=True)
    browser.force_login(client_user)
    assert_error(package.send(browser, "penguins"), 403, "forbidden")
    assert staged() == []


@pytest.mark.django_db(transaction=True)
def test_a_pushed_model_lives_as_any_other(
    api: APIClient, client_user: User, tmp_path: Path, staff: Staff
) -> None:
    """Predictions, outcomes, quality, drift, rollouts, replay, comparison, evaluation, card, rollback."""
    first = execute(Package(tmp_path / "1").send(api, "penguins"))
    shown = api.get(f"{ADDRESS}1/").json()
    assert (shown["origin"], shown["lineage"]["origin"], shown["split"]) == ("pushed", "pushed", "given")
    assert api.get(ADDRESS).json()[0]["origin"] == "pushed"
    assert first.version.status == "candidate"
    activated = api.post(f"{ADDRESS}1/activate/", {"reason": "first"}, format="json")
    assert activated.status_code == 200, activated.content

    described = api.get("/api/v1/models/penguins/").json()
    assert (described["task"], described["active_version"]) == ("multiclass", 1)
    assert [column["name"] for column in described["schema"]["columns"]] == ["bill_mm", "mass_g", "island"]

    features, truth = penguins(60, 99)
    features["mass_g"] = features["mass_g"].astype(int)
    rows = [row | {"bird": f"b{place}"} for place, row in enumerate(features.to_dict("records"))]

    def predict(number: int | None = None) -> Any:
        path = "predictions/" if number is None else f"versions/{number}/predictions/"
        answered = api.post(f"/api/v1/models/penguins/{path}", rows, format="json")
        assert answered.status_code == 200, answered.content
        return answered.json()

    body = predict()
    assert body["version"] == 1
    assert Prediction.objects.count() == 60
    outcomes = [{"key": f"b{place}", "actual": actual} for place, actual in enumerate(truth)]
    told = api.post("/api/v1/models/penguins/outcomes/", outcomes, format="json")
    assert told.status_code in (200, 201), told.content
    quality = api.get("/api/v1/models/penguins/quality/")
    assert quality.status_code == 200, quality.content
    model = RegisteredModel.objects.get(name="penguins")
    counting.roll_up(model)
    hour = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    review = api.get("/api/v1/models/penguins/drift/", {"since": hour.isoformat()})
    assert review.status_code == 200, review.content
    assert review.json()["rows"] == 60

    second = execute(Package(tmp_path / "2", seed=7).send(api, "penguins"))
    assert second.status == "succeeded", second.error
    assert second.version.gate["compared_with"] == 1
    rollouts = "/api/v1/models/penguins/rollouts/"
    for kind, more in (("shadow", {}), ("canary", {"percent": 50})):
        begun = api.post(
            rollouts,
            {"version": 2, "kind": kind, "reason": "a trial", "override": True, **more},
            format="json",
        )
        assert begun.status_code in (200, 201), begun.content
        predict()
    assert shadow_worker.worker().settle(20)
    assert api.get(rollouts).status_code == 200

    compared = api.post(f"{ADDRESS}2/comparisons/", {"with": 1}, format="json")
    assert compared.status_code == 202, compared.content
    leases.execute(Comparison, compared.json()["id"])
    comparison = api.get(compared.headers["Location"]).json()
    assert comparison["status"] == "succeeded", comparison["error"]
    assert comparison["result"]["holdout"]["same_metrics"] is True
    assert comparison["result"]["holdout"]["trained_on"] == 0

    replayed = api.post(f"{ADDRESS}2/replays/", {}, format="json")
    assert replayed.status_code in (201, 202), replayed.content
    from predictions.models import Replay

    leases.execute(Replay, replayed.json()["id"])
    assert Replay.objects.get().status == "succeeded", Replay.objects.get().error

    labelled = {"instances": [row | {"species": actual} for row, actual in zip(rows, truth, strict=True)]}
    evaluated = api.post("/api/v1/models/penguins/evaluations/?version=2", labelled, format="json")
    assert evaluated.status_code == 200, evaluated.content
    assert evaluated.json()["metrics"]["accuracy"] > 0.8

    card = api.get(f"{ADDRESS}2/card/").content.decode()
    assert "pushed by a client as a compiled graph" in card
    assert "the rows that came with it" in card

    activated = api.post(f"{ADDRESS}2/activate/", {"reason": "better", "override": True}, format="json")
    assert activated.status_code == 200, activated.content
    assert predict()["version"] == 2
    rolled = api.post("/api/v1/models/penguins/rollback/", {"reason": "worse"}, format="json")
    assert rolled.status_code == 200, rolled.content
    assert predict()["version"] == 1
    _pages(client_user, first, second)


def _pages(user: User, first: TrainingRun, second: TrainingRun) -> None:
    """The admin's pages of a pushed model say where its versions come from, and offer no training."""
    User.objects.filter(pk=user.pk).update(is_staff=True, is_superuser=True)
    browser = Client()
    browser.force_login(User.objects.get(pk=user.pk))

    def page(address: str) -> str:
        answered = browser.get(address)
        assert answered.status_code == 200, (address, answered.content[:300])
        return str(answered.content.decode())

    model = first.registered_model_id
    text = page(f"/admin/training/registeredmodel/{model}/change/")
    assert "Retrain…" not in text
    assert 'name="retrain_on"' not in text
    assert "cannot be trained here" in text
    assert "not_trainable" not in text
    version = page(f"/admin/training/modelversion/{second.version.pk}/change/")
    assert "pushed by a client as a compiled graph" in version
    assert "the last 100 rows of the dataset" in version
    run = page(f"/admin/training/trainingrun/{first.pk}/change/")
    assert "pushed by a client as a compiled graph" in run
    for kind in ("registeredmodel", "modelversion", "trainingrun", "dataset"):
        page(f"/admin/training/{kind}/")
    assert "pushed" in page("/admin/training/modelversion/?origin=pushed")
    listed, number = "/admin/training/trainingrun/?origin=", f"run\N{NO-BREAK SPACE}{first.pk}"
    assert number in page(f"{listed}pushed")
    assert number not in page(f"{listed}imported")
    page(f"/admin/training/modelversion/{first.version.pk}/compare/{second.version.pk}/")
    refused = browser.get(f"/admin/training/registeredmodel/{model}/retrain/", follow=True)
    assert "cannot be trained here" in refused.content.decode()


def test_a_push_costs_the_bytes_that_it_stores(package: Package) -> None:
    execute(package.send(client("push"), "penguins"))
    files = sum(package.file(part).stat().st_size for part in manifests.FILES)
    [counted] = StoredUpload.objects.all()
    assert counted.kind == "push"
    assert files < counted.size < files + manifests.LARGEST
