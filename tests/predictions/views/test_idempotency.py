"""`Idempotency-Key` on every POST that creates something."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.test import APIClient

from predictions.models import Outcome, Replay
from recommender.models import Interaction, Movie
from recommender.movie_schema import EXAMPLE
from tests.conftest import Post, assert_error, at_once, keyed
from tests.predictions.admin.test_log import answered
from tests.trained import SAMPLES, train_sample
from training.models import Activation, IdempotencyKey, ModelVersion, Rollout, TrainingRun
from training.registry import lookup
from training.views.idempotent import IdempotentView

pytestmark = pytest.mark.django_db(transaction=True)
RUNS = "/api/v1/models/churn/training-runs/"
ONCE = {"Idempotency-Key": "once"}


def routes(resolver: URLResolver, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for each in resolver.url_patterns:
        path = prefix + str(each.pattern)
        if isinstance(each, URLPattern):
            yield path, getattr(each.callback, "cls", None)
        else:
            yield from routes(each, path)


def test_every_post_route_supports_idempotency_keys() -> None:
    posts = {
        path: view
        for path, view in routes(get_resolver())
        if path.startswith(("api/v1/", "predict", "predecir", "recommend")) and hasattr(view, "post")
    }
    assert len(posts) > 15
    assert [path for path, view in posts.items() if not issubclass(view, IdempotentView)] == []


def rows(count: int) -> bytes:
    lines = (SAMPLES / "churn.csv").read_bytes().splitlines(keepends=True)
    return b"".join(lines[: count + 1])


def test_the_same_upload_with_the_same_key_is_one_training_run(churn: ModelVersion, post: Post) -> None:
    first = post(f"{RUNS}?mode=append", rows(60), "text/csv", **ONCE)
    again = post(f"{RUNS}?mode=append", rows(60), "text/csv", **ONCE)
    assert (first.status_code, again.status_code) == (202, 202)
    assert (again.json(), again["Location"]) == (first.json(), first["Location"])
    assert ("Idempotent-Replayed" in first, again["Idempotent-Replayed"]) == (False, "true")
    assert TrainingRun.objects.filter(upload__rows=60).count() == 1
    for path, body in ((f"{RUNS}?mode=append", rows(61)), (f"{RUNS}?mode=replace", rows(60))):
        assert_error(post(path, body, "text/csv", **ONCE), 409, "idempotency_key_reused")
    assert_error(post(RUNS, {"search": {"n_iter": 3}}, **ONCE), 409, "idempotency_key_reused")
    assert TrainingRun.objects.exclude(upload=churn.run.upload).count() == 1


def test_the_same_key_for_a_prediction_and_a_training_run_is_refused(
    churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    assert post("/api/v1/models/churn/predictions/", customer, **ONCE).status_code == 200
    assert_error(post(RUNS, rows(60), "text/csv", **ONCE), 409, "idempotency_key_reused")
    assert post(RUNS, rows(60), "text/csv", **{"Idempotency-Key": "run"}).status_code == 202
    reused = post("/api/v1/models/churn/predictions/", customer, **{"Idempotency-Key": "run"})
    assert_error(reused, 409, "idempotency_key_reused")


def test_each_client_has_its_own_keys(churn: ModelVersion, post: Post, api: APIClient) -> None:
    assert post(RUNS, rows(60), "text/csv", **ONCE).status_code == 202
    other = keyed(User.objects.create_superuser("other"))
    answer = other.generic("POST", RUNS, rows(60), content_type="text/csv", headers=ONCE)
    assert (answer.status_code, "Idempotent-Replayed" in answer) == (202, False)


@pytest.mark.parametrize("key", ["", " ", "ä", "k" * 201])
def test_a_key_that_cannot_be_stored_is_refused(churn: ModelVersion, post: Post, key: str) -> None:
    refused = post(RUNS, rows(60), "text/csv", **{"Idempotency-Key": key})
    if key == " ":  # a blank header counts as no header
        assert refused.status_code in (202, 400)
        return
    assert_error(refused, 400, "bad_idempotency_key")


def test_other_creating_requests_create_once(churn: ModelVersion, post: Post) -> None:
    second = train_sample("churn", rows=700, activate=False)
    model = "/api/v1/models/churn"
    [logged] = answered(churn, key="c7")
    lookup.sync_catalogue()
    labelled = [json.loads(json.dumps(churn.dataset_schema.example)) | {"churn": True}] * 3
    bodies: list[tuple[str, Any]] = [
        (f"{model}/outcomes/", {"key": "c7", "actual": True}),
        (f"{model}/evaluations/", {"instances": labelled}),
        (f"{model}/versions/{second.number}/replays/", {}),
        (f"{model}/rollouts/", {"version": second.number, "kind": "shadow", "reason": "a look"}),
        (f"{model}/versions/{second.number}/activate/", {"reason": "newer", "override": True}),
        (f"{model}/rollback/", {"reason": "back"}),
        ("/api/v1/movies/", EXAMPLE | {"id": 7}),
        ("/api/v1/interactions/", [{"user": "u", "movie_id": 7, "kind": "liked"}]),
    ]
    kinds = (Outcome, Replay, Rollout, Activation, Movie, Interaction)
    for number, (path, body) in enumerate(bodies):
        headers = {"Idempotency-Key": f"k{number}"}
        first = post(path, body, **headers)
        assert first.status_code < 300, (path, first.content)
        counts = [kind.objects.count() for kind in kinds]
        again = post(path, body, **headers)
        assert (again.status_code, again.json()) == (first.status_code, first.json()), path
        assert again["Idempotent-Replayed"] == "true"
        assert again.get("Location") == first.get("Location")
        assert [kind.objects.count() for kind in kinds] == counts
    assert Outcome.objects.get().prediction_id == logged.pk
    assert IdempotencyKey.objects.count() == len(bodies)


def test_a_refused_request_leaves_the_key_free(churn: ModelVersion, post: Post) -> None:
    path = "/api/v1/models/churn/versions/1/activate/"
    assert_error(post(path, {"reason": "again"}, **ONCE), 409, "already_active")
    assert IdempotencyKey.objects.count() == 0
    assert post(RUNS, rows(60), "text/csv", **ONCE).status_code == 202


def test_a_request_whose_answer_cannot_be_stored_creates_nothing(churn: ModelVersion, post: Post) -> None:
    """The response and the rows that it describes are one transaction."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE predictions_idempotencykey ADD CONSTRAINT never CHECK (status = 0)")
    try:
        with pytest.raises(IntegrityError, match="never"):
            post(RUNS, {"search": {"n_iter": 3}}, **ONCE)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE predictions_idempotencykey DROP CONSTRAINT never")
    assert not TrainingRun.objects.exclude(pk=churn.run_id).exists()


def test_concurrent_duplicates_create_once_and_all_get_the_answer(
    churn: ModelVersion, client_user: User
) -> None:
    second = train_sample("churn", rows=700, activate=False)
    client = keyed(client_user)
    token = client._credentials["HTTP_AUTHORIZATION"]
    path = f"/api/v1/models/churn/versions/{second.number}/activate/"
    answers: list[tuple[int, Any]] = []

    def send() -> None:
        one = APIClient()
        one.credentials(HTTP_AUTHORIZATION=token)
        body = {"reason": "newer", "override": True}
        answer = one.post(path, body, format="json", headers={"Idempotency-Key": "same"})
        answers.append((answer.status_code, answer.json()))

    before = Activation.objects.count()
    at_once(*[send] * 6)
    assert answers == [answers[0]] * 6
    assert answers[0][0] == 200
    assert Activation.objects.count() == before + 1


def test_a_next_link_has_each_parameter_once(churn: ModelVersion, api: APIClient) -> None:
    answered(churn, 3)
    for path in ("predictions", "outcomes"):
        if path == "outcomes":
            outcomes = [{"key": f"k{number}", "actual": True} for number in range(3)]
            api.post("/api/v1/models/churn/outcomes/", outcomes, format="json")
        link = f"/api/v1/models/churn/{path}/?format=json&limit=1&since=2020-01-01"
        seen = 0
        while link is not None:
            page = api.get(link)
            assert page.status_code == 200, link
            seen += len(page.json()[path])
            link = page.json()["next"]
            assert link is None or (link.count("format=") == link.count("?") == link.count("limit=") == 1)
        assert seen == 3
