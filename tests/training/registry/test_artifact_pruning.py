"""Pruning removes old artifacts, and keeps their rows and every artifact that may still be needed."""

from __future__ import annotations

import io
import threading
import time
from typing import Any

import pytest
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse

from core.errors import ArtifactPruned
from predictions import tasks
from tests.conftest import Post, assert_error
from tests.trained import train_sample
from training import artifacts
from training.models import ModelVersion, PrunedArtifact, RegisteredModel, Rollout
from training.registry import activation as version_activation
from training.registry import artifact_pruning
from training.serving import routing

pytestmark = pytest.mark.django_db(transaction=True)


def never(version: ModelVersion) -> bool:
    return False


def with_bytes_of_its_own(note: str) -> ModelVersion:
    """Creates a version with unique stored bytes: comments after the pickle's end change nothing."""
    first = ModelVersion.objects.order_by("pk")[0]
    pipeline, compiled = artifacts.fetch(first), artifacts.fetch_compiled(first)
    stored = artifacts.store(pipeline + note.encode())
    graph = artifacts.store(compiled + b"\x32" + bytes([len(note)]) + note.encode())  # ONNX's doc_string
    return train_sample(
        "churn",
        rows=600,
        activate=False,
        artifact_sha256=stored.sha256,
        artifact_hmac=stored.hmac,
        artifact_size=stored.size,
        compiled_sha256=graph.sha256,
        compiled_hmac=graph.hmac,
        compiled_size=graph.size,
    )


@pytest.fixture
def five(churn: ModelVersion) -> list[ModelVersion]:
    """Versions 1 to 5, activated one after another; 1 and 5 have the same bytes."""
    versions = [churn, *(with_bytes_of_its_own(f"v{number}") for number in (2, 3, 4))]
    versions.append(train_sample("churn", rows=600, activate=False))
    for version in versions[1:]:
        version_activation.activate(version, by=None, reason="the next one")
    for version in versions:
        version.refresh_from_db()
    return versions


def is_stored(version: ModelVersion) -> tuple[bool, bool]:
    names = (version.artifact_sha256, version.compiled_sha256)
    first, second = (default_storage.exists(f"artifacts/{name[:2]}/{name}") for name in names)
    return first, second


def prune_output(*words: Any, **options: Any) -> str:
    out = io.StringIO()
    call_command("prune", *words, stdout=out, **options)
    return out.getvalue()


def test_old_retired_versions_lose_their_artifacts_and_keep_their_rows(five: list[ModelVersion]) -> None:
    first, second, third, fourth, active = five
    model = active.registered_model
    results = artifact_pruning.prune(model, is_referred_to=never, keep=1)
    assert [(each.version.number, each.kept) for each in results] == [(1, ""), (2, ""), (3, "")]
    assert [row.version for row in PrunedArtifact.objects.order_by("version__number")] == [
        first,
        second,
        third,
    ]
    assert is_stored(first) == (True, True), "version 5 has the same bytes and answers"
    assert is_stored(second) == is_stored(third) == (False, False)
    assert is_stored(fourth) == is_stored(active) == (True, True)
    assert results[0].freed == 0
    assert results[1].freed == second.artifact_size + (second.compiled_size or 0) == second.pruned.freed
    assert ModelVersion.objects.count() == 5
    assert artifact_pruning.prune(model, is_referred_to=never, keep=1) == []


def test_artifacts_that_a_rollback_or_a_rollout_needs_stay(five: list[ModelVersion]) -> None:
    model = five[-1].registered_model
    Rollout.objects.create(registered_model=model, version=five[1], kind="shadow", reason="to see")
    kept = {
        each.version.number: each.kept for each in artifact_pruning.prune(model, is_referred_to=never, keep=0)
    }
    assert kept == {1: "", 2: "it is in a running rollout", 3: "", 4: "it is the target of a rollback"}
    assert version_activation.rollback(model, by=None, reason="back").version == five[3]
    assert version_activation.rollback_target(model) == five[1], "the pruned ones are passed over"


def test_nothing_is_pruned_without_a_number_of_artifacts_to_keep(five: list[ModelVersion]) -> None:
    model = five[-1].registered_model
    assert prune_output() == "0 artifacts pruned, 0\xa0bytes\n"
    assert tasks.prune_artifacts() == 0
    RegisteredModel.objects.filter(pk=model.pk).update(kept_artifacts=2)
    assert "churn 2: would be pruned" in prune_output("churn", dry_run=True)
    assert not PrunedArtifact.objects.exists()
    assert is_stored(five[1]) == (True, True)
    assert tasks.prune_artifacts() == 2
    assert sorted(PrunedArtifact.objects.values_list("version__number", flat=True)) == [1, 2]
    with pytest.raises(CommandError, match="no registered model"):
        prune_output("chrun")
    with pytest.raises(CommandError, match="whole number"):
        prune_output("churn", "--keep", "-1")


def test_versions_in_the_log_are_kept_unless_an_option_says_otherwise(
    five: list[ModelVersion], post: Post, customer: dict[str, Any]
) -> None:
    assert post("/api/v1/models/churn/versions/2/predictions/", customer).status_code == 200
    assert "churn 2: kept: rows of the log refer to it" in prune_output("churn", keep=2)
    assert is_stored(five[1]) == (True, True)
    assert post("/api/v1/models/churn/versions/2/predictions/", customer).status_code == 200
    assert "churn 2: pruned" in prune_output("churn", keep=2, although_logged=True)
    assert five[1].pruned.although_logged
    assert is_stored(five[1]) == (False, False)


def test_a_pruned_version_is_neither_used_nor_activated_nor_loaded_even_from_caches(
    five: list[ModelVersion], post: Post, customer: dict[str, Any], admin_client: Client
) -> None:
    address = "/api/v1/models/churn/versions/1/predictions/"
    assert post(address, customer).status_code == 200, "and so this process holds it in memory"
    knew, generation = routing.current().find_version("churn", 1, 0), routing.generation()
    prune_output("churn", keep=2, although_logged=True)
    assert knew is not None
    assert routing.generation() > generation, "so no process answers from what it knew"
    assert routing.refresh(generation).find_version("churn", 1, 0) is None
    error = assert_error(post(address, customer), 409, "artifact_pruned")
    assert "churn 1" in error["message"]
    activation = post("/api/v1/models/churn/versions/2/activate/", {"reason": "again"})
    assert_error(activation, 409, "artifact_pruned")
    for version in five[:2]:  # the bytes of version 1 remain, because version 5 needs them
        with pytest.raises(ArtifactPruned):
            artifacts.load_pipeline(version)
    assert post("/api/v1/models/churn/predictions/", customer).json()["version"] == 5
    page = admin_client.get(reverse("admin:training_modelversion_change", args=[five[1].pk])).content.decode()
    assert "Its artifact was pruned" in page
    assert "Activate…" not in page
    switch = admin_client.get(reverse("admin:training_modelversion_activate", args=[five[1].pk]), follow=True)
    assert "was pruned" in switch.content.decode()


def test_the_next_pruning_finishes_an_interrupted_one(
    five: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, remove = five[-1].registered_model, artifacts.remove

    def dying(digest: str) -> None:
        raise OSError("the process ended here")

    monkeypatch.setattr(artifacts, "remove", dying)
    with pytest.raises(OSError, match="ended here"):
        artifact_pruning.prune(model, is_referred_to=never, keep=2)
    assert PrunedArtifact.objects.count() == 2
    assert is_stored(five[1]) == (True, True)
    monkeypatch.setattr(artifacts, "remove", remove)
    assert artifact_pruning.prune(model, is_referred_to=never) == []
    assert is_stored(five[1]) == (False, False)


def test_a_new_version_restores_pruned_bytes(five: list[ModelVersion]) -> None:
    stored = artifacts.Stored(five[1].artifact_sha256, five[1].artifact_hmac, five[1].artifact_size)
    data = artifacts.fetch(five[1])
    artifact_pruning.prune(five[-1].registered_model, is_referred_to=never, keep=2)
    assert is_stored(five[1]) == (False, False)
    artifacts.ensure(stored, data)
    assert is_stored(five[1]) == (True, False)


def test_bytes_that_a_run_relies_on_are_not_removed_before_its_version_exists(
    five: list[ModelVersion],
) -> None:
    """The run may belong to another model, so the lock of the pruned model is not enough."""

    def prune() -> None:
        artifact_pruning.prune(five[-1].registered_model, is_referred_to=never, keep=2)
        connection.close()

    pruner = threading.Thread(target=prune)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND NOT granted"
    with transaction.atomic():
        version_activation.lock_bytes(shared=True)
        pruner.start()
        until = time.monotonic() + 20
        with connection.cursor() as cursor:
            while cursor.execute(waiting, [version_activation.BYTES]).fetchone() == (0,):
                assert time.monotonic() < until
                time.sleep(0.02)
        same = {name: getattr(five[1], name) for name in ("artifact_sha256", "artifact_hmac")}
        train_sample("churn", rows=600, activate=False, **same)
    pruner.join(20)
    assert PrunedArtifact.objects.filter(version=five[1]).exists()
    assert is_stored(five[1]) == (True, False)
