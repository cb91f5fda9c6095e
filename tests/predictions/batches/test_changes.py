"""Keys, rights, models and versions that change while a batch runs; cancellation; retention."""

from __future__ import annotations

import datetime as dt
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import uuid_utils
from django.contrib.auth.models import Permission, User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection, connections, transaction
from django.utils import timezone
from knox.models import AuthToken

from core.errors import Conflict
from predictions import tasks
from predictions.batches import chunks, results
from predictions.batches.scoring import Scorer
from predictions.models import Batch, BatchChunk, Prediction
from predictions.serializers.batches import kept_until
from tests.predictions.batches.conftest import created, done, rows_of, table
from tests.predictions.batches.test_batches import cars_csv
from tests.trained import train_sample
from training.access import client_keys
from training.jobs import leases
from training.models import ModelVersion, RegisteredModel
from training.registry import activation, archiving, artifact_pruning

pytestmark = pytest.mark.django_db(transaction=True)
CHUNK = 40


@pytest.fixture
def after_first(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Callable[[Callable[[], object]], None]:
    """A function that makes something happen when the first chunk of a batch is committed."""
    settings.BATCH_CHUNK_ROWS = CHUNK

    def arrange(change: Callable[[], object]) -> None:
        score, called = Scorer.score, []

        def then_changed(self: Scorer, chunk: BatchChunk) -> None:
            score(self, chunk)
            if not called:
                called.append(1)
                change()

        monkeypatch.setattr(Scorer, "score", then_changed)

    return arrange


def test_a_revoked_key_ends_its_batch(cars: ModelVersion, client_user: User, after_first: Any) -> None:
    client_keys.issue(client_user)
    client_keys.issue(client_user)
    token, other = AuthToken.objects.filter(user=client_user)
    batch = created(cars, cars_csv(100), by=client_user, token_key=token.token_key)
    after_first(token.delete)
    done(batch)
    assert (batch.status, batch.error) == (
        "failed",
        "the batch was stopped: the key that requested it was revoked",
    )
    assert (batch.scored, len(rows_of(batch)), len(table(results.results(batch)))) == (CHUNK,) * 3
    assert AuthToken.objects.get().pk == other.pk


def test_another_key_of_the_same_client_may_be_revoked(
    cars: ModelVersion, client_user: User, after_first: Any
) -> None:
    client_keys.issue(client_user)
    client_keys.issue(client_user)
    token, other = AuthToken.objects.filter(user=client_user)
    batch = created(cars, cars_csv(100), by=client_user, token_key=token.token_key)
    after_first(other.delete)
    done(batch)
    assert (batch.status, batch.scored) == ("succeeded", 100)
    assert {row.client_id for row in rows_of(batch)} == {client_user.pk}
    assert {row.request_id for row in rows_of(batch)} == {f"batch-{batch.pk}"}


@pytest.mark.parametrize("how", ["right", "user"])
def test_a_withdrawn_right_ends_the_batch(cars: ModelVersion, after_first: Any, how: str) -> None:
    user = User.objects.create_user("nightly")
    user.user_permissions.add(Permission.objects.get(codename="predict"))
    batch = created(cars, cars_csv(100), by=user)

    def withdraw() -> None:
        if how == "right":
            user.user_permissions.clear()
        else:
            User.objects.filter(pk=user.pk).update(is_active=False)

    after_first(withdraw)
    done(batch)
    assert batch.status == "failed"
    assert batch.error.startswith("the batch was stopped: nightly has no right to predict with cars any more")
    assert len(rows_of(batch)) == CHUNK


def test_an_archived_model_ends_the_batch(cars: ModelVersion, client_user: User, after_first: Any) -> None:
    batch = created(cars, cars_csv(100))
    after_first(lambda: archiving.archive(cars.registered_model, by=client_user, reason="over"))
    done(batch)
    assert batch.status == "failed"
    assert "was archived" in batch.error
    assert len(rows_of(batch)) == CHUNK


def test_a_pruned_version_ends_the_batch(db: None, after_first: Any) -> None:
    old = train_sample("cars", rows=600)
    for _ in range(2):  # a rollback needs the version before the active one
        newer = train_sample("cars", rows=600, activate=False)
        activation.activate(newer, by=None, reason="newer", override=True)
    batch = created(old, cars_csv(100))

    def prune() -> None:
        pruned = artifact_pruning.prune(
            old.registered_model, is_referred_to=lambda version: False, keep=0, although_logged=True
        )
        assert [each.version.pk for each in pruned if not each.kept] == [old.pk]

    after_first(prune)
    done(batch)
    assert batch.status == "failed"
    assert "was pruned" in batch.error
    assert len(rows_of(batch)) == CHUNK


def test_an_activation_neither_changes_a_batch_nor_waits_for_it(
    cars: ModelVersion, settings: Any, client_user: User
) -> None:
    """The version is fixed by the request. The activation waits for the commit of a chunk at most."""
    settings.BATCH_CHUNK_ROWS = 8_000
    other = train_sample("cars", rows=600, activate=False)
    batch = created(cars, cars_csv(24_000))
    thread = threading.Thread(target=lambda: (leases.execute(Batch, batch.pk), connections.close_all()))
    thread.start()
    waited = []
    until = time.monotonic() + 60
    while thread.is_alive() and time.monotonic() < until:
        version = other if len(waited) % 2 == 0 else cars
        began = time.monotonic()
        activation.activate(version, by=None, reason="again", override=True)
        waited.append(time.monotonic() - began)
        time.sleep(0.1)
    thread.join()
    batch.refresh_from_db()
    assert (batch.status, batch.scored) == ("succeeded", 24_000)
    assert len(waited) > 3
    assert max(waited) < 2.0, "0.2 s on a machine with nothing else to do; see docs/batches.md"
    assert set(Prediction.objects.values_list("version_id", flat=True)) == {cars.pk}
    assert Prediction.objects.count() == 24_000
    answered = [row["id"] for row in table(results.results(batch))]
    assert len(set(answered)) == 24_000


def test_a_cancelled_batch_keeps_what_is_done_and_commits_nothing_more(
    cars: ModelVersion, client_user: User, after_first: Any
) -> None:
    batch = created(cars, cars_csv(100))
    after_first(lambda: leases.request_cancel(batch, by=client_user))
    done(batch)
    assert (batch.status, batch.scored, len(rows_of(batch))) == ("cancelled", CHUNK, CHUNK)
    assert chunks.claim(batch.pk, uuid.uuid4()) is None
    assert len(table(results.results(batch))) == CHUNK


def test_a_chunk_of_a_cancelled_batch_is_not_committed(
    cars: ModelVersion, client_user: User, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancellation arrives between the files of a chunk and its commit."""
    settings.BATCH_CHUNK_ROWS = CHUNK
    batch = created(cars, cars_csv(100))
    commit = Scorer._commit

    def cancelled(self: Scorer, *args: Any) -> bool:
        if not Batch.objects.filter(pk=batch.pk, cancel_requested_at__isnull=False).exists():
            leases.request_cancel(batch, by=client_user)
        return commit(self, *args)

    monkeypatch.setattr(Scorer, "_commit", cancelled)
    done(batch)
    assert (batch.status, batch.scored, len(rows_of(batch))) == ("cancelled", 0, 0)
    assert default_storage.listdir(batch.folder)[1] == ["source"]


def test_files_are_removed_after_their_time_and_the_log_stays(cars: ModelVersion, settings: Any) -> None:
    settings.BATCH_KEEP_DAYS = 7
    batch, young = done(created(cars, cars_csv(30))), done(created(cars, cars_csv(20)))
    Batch.objects.filter(pk=batch.pk).update(finished_at=timezone.now() - dt.timedelta(days=8))
    default_storage.save(f"{young.folder}/0000000-dead.csv", ContentFile(b"left by a dead attempt"))
    old = int((timezone.now() - dt.timedelta(hours=7)).timestamp() * 1e9)
    orphan, fresh = (f"batches/{uuid_utils.uuid7(nanoseconds=at)}" for at in (old, None))
    for folder in (orphan, fresh):
        default_storage.save(f"{folder}/source", ContentFile(b"no batch took it"))
    assert tasks.remove_old_batches() == 1
    batch.refresh_from_db()
    assert batch.removed_at is not None
    assert not default_storage.exists(batch.folder)
    assert not default_storage.exists(orphan)
    assert default_storage.exists(f"{fresh}/source")
    assert not default_storage.exists(f"{young.folder}/0000000-dead.csv")
    assert len(table(results.results(young))) == 20
    assert (len(rows_of(batch)), batch.scored, batch.rows) == (30, 30, 30)
    with pytest.raises(Conflict, match="BATCH_KEEP_DAYS"):
        results.results(batch)
    assert tasks.remove_old_batches() == 0


def test_files_that_hold_an_erased_row_are_removed(cars: ModelVersion, settings: Any) -> None:
    batch, other = done(created(cars, cars_csv(30))), done(created(cars, cars_csv(20)))
    assert tasks.remove_old_batches() == 0
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL vigia.maintenance = 'erase'")
        rows_of(batch)[7].delete()
    assert tasks.remove_old_batches() == 1
    assert not default_storage.exists(batch.folder)
    batch.refresh_from_db()
    with pytest.raises(Conflict, match="a row was erased"):
        results.results(batch)
    assert len(table(results.results(other))) == 20, "its rows are all there"


def test_files_stay_for_ever_if_the_operator_says_so(cars: ModelVersion, settings: Any) -> None:
    settings.BATCH_KEEP_DAYS = 0
    batch = done(created(cars, cars_csv(20)))
    assert kept_until(batch) is None
    assert tasks.remove_old_batches() == 0
    assert len(table(results.results(batch))) == 20


def test_a_batch_whose_file_is_gone_fails_and_says_what_to_do(cars: ModelVersion) -> None:
    """A restored backup has the batch without its files."""
    batch = created(cars, cars_csv(30))
    default_storage.delete(batch.source_name)
    done(batch)
    assert (batch.status, batch.error) == (
        "failed",
        "a file of the batch is not in the store any more: send the file again",
    )
    finished = done(created(cars, cars_csv(30)))
    for name in default_storage.listdir(finished.folder)[1]:
        default_storage.delete(f"{finished.folder}/{name}")
    for download in ("csv", "parquet"):
        with pytest.raises(Conflict, match="not in the store any more"):
            results.results(finished, download)


def test_the_switch_of_probabilities_decides_the_columns(db: None, settings: Any) -> None:
    settings.BATCH_CHUNK_ROWS = CHUNK
    churn = train_sample("churn", rows=600)
    lines = churn_csv(50)
    with_classes = table(results.results(done(created(churn, lines))))
    RegisteredModel.objects.filter(pk=churn.registered_model_id).update(answers_probabilities=False)
    without = table(results.results(done(created(churn, lines))))
    assert list(without[0]) == ["row", "key", "id", "prediction", "probability", "warnings"]
    assert list(with_classes[0]) == [
        "row", "key", "id", "prediction", "probability", "probability_false", "probability_true", "warnings",
    ]  # fmt: skip
    for one, other in zip(with_classes, without, strict=True):
        assert one["probability"] == one["probability_true"] == other["probability"]
        assert float(one["probability_false"]) == pytest.approx(1 - float(one["probability_true"]))


def churn_csv(rows: int) -> bytes:
    from tests.trained import SAMPLES

    return b"\n".join((SAMPLES / "churn.csv").read_bytes().splitlines()[: rows + 1])


def test_a_key_that_begins_like_a_formula_is_neutral_in_csv_and_itself_in_parquet(cars: ModelVersion) -> None:
    import io

    import pyarrow.parquet as pq

    head, *lines = cars_csv(2).splitlines()
    data = b"\n".join([b"_key," + head, b"=1+1," + lines[0], b"plain," + lines[1]])
    batch = done(created(cars, data))
    assert [each["key"] for each in table(results.results(batch))] == ["'=1+1", "plain"]
    content = b"".join(results.results(batch, "parquet").pieces)
    assert pq.read_table(io.BytesIO(content))["key"].to_pylist() == ["=1+1", "plain"]


def test_a_packed_bomb_is_not_unpacked(cars: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    from predictions.batches import preparation

    monkeypatch.setattr(preparation, "UNSUSPECTED", 2**20)
    packed = gzip.compress(cars_csv(0) + b" " * 2**23)
    batch = done(created(cars, packed, gzip=True))
    assert batch.status == "failed"
    assert "unpacks to more than 200 times as many" in batch.error
    assert default_storage.listdir(batch.folder)[1] == ["source"]


def test_a_file_that_unpacks_to_too_many_bytes_is_refused(cars: ModelVersion, settings: Any) -> None:
    import gzip

    settings.BATCH_MAX_BYTES = 1_000
    batch = done(created(cars, gzip.compress(cars_csv(100)), gzip=True))
    assert batch.status == "failed"
    assert "BATCH_MAX_BYTES" in batch.error
