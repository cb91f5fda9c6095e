"""Processes that meet at the same moment: a commit still on its way, a clean-up, a removal, a reader."""

from __future__ import annotations

import datetime as dt
import os
import socket
import threading
import time
import uuid
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from core.errors import Conflict
from predictions.batches import chunks, files, results, scoring
from predictions.batches.scoring import ChunkLost, Scorer
from predictions.models import Batch, BatchChunk, Prediction
from tests.core.events.test_placing import OtherTransaction
from tests.predictions.batches.conftest import created, done, table
from tests.predictions.batches.test_batches import cars_csv
from tests.predictions.batches.test_crashes import CHUNK, ROWS, assert_once, lease_expires, prepared, wait_for
from training.models import ModelVersion

__all__ = ["prepared"]
pytestmark = pytest.mark.django_db(transaction=True)


def waiting_writes() -> int:
    """Returns the number of connections of the log that wait for a lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vigia log' "
            "AND datname = current_database() AND wait_event_type = 'Lock'"
        )
        return int(cursor.fetchone()[0])


class Scoring(threading.Thread):
    """Scores a claimed chunk in a thread; keeps the class of its error."""

    def __init__(self, scorer: Scorer, chunk: BatchChunk) -> None:
        super().__init__()
        self.scorer, self.chunk = scorer, chunk
        self.error: type[Exception] | None = None
        self.start()

    def run(self) -> None:
        try:
            self.scorer.score(self.chunk)
        except Exception as error:
            self.error = type(error)
        finally:
            connection.close()


def claimed(batch: Batch) -> tuple[BatchChunk, uuid.UUID]:
    owner = uuid.uuid4()
    chunk = chunks.claim(batch.pk, owner)
    assert chunk is not None
    return chunk, owner


def test_a_commit_on_its_way_keeps_its_files_when_the_process_tries_again(
    prepared: Batch, settings: Any
) -> None:
    """The connection breaks while PostgreSQL still executes the statement. When its answers have become old,
    the process renews them, and then the first statement commits."""
    settings.LOG_WAIT_SECONDS = 1.0
    chunk, owner = claimed(prepared)
    with Scorer(prepared, owner) as scorer:
        with transaction.atomic():
            BatchChunk.objects.select_for_update().get(pk=chunk.pk)
            thread = Scoring(scorer, chunk)
            wait_for(lambda: waiting_writes() == 1)
            time.sleep(1.0)
            assert scorer._wire._connection is not None
            with socket.socket(fileno=os.dup(scorer._wire._connection.pgconn.socket)) as wire:
                wire.shutdown(socket.SHUT_RDWR)
            wait_for(lambda: waiting_writes() == 2)
        thread.join()
    assert thread.error in (None, ChunkLost)
    lease_expires(prepared)
    done(prepared)
    assert_once(prepared, ROWS)


def test_the_clean_up_of_a_cancelled_batch_spares_a_chunk_whose_commit_is_on_its_way(prepared: Batch) -> None:
    chunk, owner = claimed(prepared)
    lock = OtherTransaction(lambda: BatchChunk.objects.select_for_update().get(pk=chunk.pk))
    with Scorer(prepared, owner) as scorer:
        thread = Scoring(scorer, chunk)
        wait_for(lambda: waiting_writes() == 1)
        Batch.objects.filter(pk=prepared.pk).update(status="cancelled", finished_at=timezone.now())
        looked: list[str] = []

        def commits_after_the_first_look(execute: Any, sql: str, *rest: Any) -> Any:
            result = execute(sql, *rest)
            if "predictions_batchchunk" in sql and not looked:
                looked.append(sql)
                lock.commit()
                thread.join()
            return result

        with connection.execute_wrapper(commits_after_the_first_look):
            files.clean_up(prepared.pk)
    assert looked
    prepared.refresh_from_db()
    answers = table(results.results(prepared))
    logged = {str(each) for each in Prediction.objects.values_list("id", flat=True)}
    assert {each["id"] for each in answers} == logged
    assert len(logged) == CHUNK


def test_results_that_are_removed_while_they_are_asked_for_are_not_empty(cars: ModelVersion) -> None:
    """A request has read the batch's row just before its files and chunks were removed."""
    batch = done(created(cars, cars_csv(5)))
    Batch.objects.filter(pk=batch.pk).update(finished_at=timezone.now() - dt.timedelta(days=1000))
    assert files.remove_old() == 1
    for read in (results.results, results.errors):
        before = Batch.objects.get(pk=batch.pk)
        before.removed_at = None
        with pytest.raises(Conflict, match="were removed"):
            read(before)


def test_a_log_that_is_away_for_too_long_gets_the_chunk_later(
    prepared: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch does not fail: its rows would be sent, and logged, again."""
    log, away = "predictions_prediction", "predictions_prediction_away"
    monkeypatch.setattr(scoring, "PATIENCE_SECONDS", 0.0)
    release, released = chunks.release, []

    def release_and_bring_back(*args: Any) -> None:
        release(*args)
        released.append(1)
        if len(released) == 2:
            rename(away, log)

    monkeypatch.setattr(chunks, "release", release_and_bring_back)
    lease_expires(prepared)
    rename(log, away)
    try:
        done(prepared)
    finally:
        if len(released) < 2:
            rename(away, log)
    assert len(released) == 2 + prepared.chunks.count()
    assert_once(prepared, ROWS)


def rename(table_name: str, to: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table_name} RENAME TO {to}")
