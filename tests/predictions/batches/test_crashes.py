"""Workers that are killed, lose their claims, join late, or work side by side: every row is logged once."""

from __future__ import annotations

import datetime as dt
import gzip
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import default_storage
from django.db import connection
from django.utils import timezone

from predictions.batches import chunks, jobs, results
from predictions.batches.scoring import ChunkLost, Scorer
from predictions.models import Batch, BatchChunk, BatchShare, Prediction
from tests.predictions.batches.conftest import created, done, table
from tests.predictions.batches.test_batches import cars_csv
from tests.server import child_environment
from training.jobs import leases, supervisor
from training.models import ModelVersion
from vigia_ml.schema.sections import Section

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.django_db(transaction=True)
ROWS, CHUNK = 320, 40

PROGRAM = """
import os, signal, sys, time, django
django.setup()
from predictions.batches import files, jobs, preparation, writing
from predictions.batches.scoring import Scorer
from predictions.models import Batch, BatchShare
from training.jobs import leases, supervisor

def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)

def before(owner, name, call=1):
    wrapped, calls = getattr(owner, name), []
    def replaced(*args, **kwargs):
        calls.append(1)
        if len(calls) == call: die()
        return wrapped(*args, **kwargs)
    setattr(owner, name, replaced)

def after(owner, name, call=1):
    wrapped, calls = getattr(owner, name), []
    def replaced(*args, **kwargs):
        result = wrapped(*args, **kwargs)
        calls.append(1)
        if len(calls) == call: die()
        return result
    setattr(owner, name, replaced)

def together(scored=jobs._score_chunks):
    # Both shares have to begin before any process scores.
    def waiting(*args):
        while BatchShare.objects.filter(started_at__isnull=False).count() < 2: time.sleep(0.02)
        return scored(*args)
    jobs._score_chunks = waiting

{stage}
kind, job = (Batch, {job}) if {of_batch} else (BatchShare, {job})
print(leases.execute(kind, job), flush=True)
"""

# Named places between which a process of a batch may die, and where to kill it there.
STAGES = {
    "before the file is read": "before(preparation, '_rows_as_they_are_read')",
    "while the rows are unpacked": "before(files, 'write_pieces')",
    "before the first chunks are inserted": "before(preparation.chunks, 'add')",
    "between two insertions of chunks": "preparation.INSERTED = 2\nbefore(preparation.chunks, 'add', 2)",
    "before the preparation is noted": "after(preparation.chunks, 'add')",
    "after a claim": "after(jobs.chunks, 'claim', 2)",
    "between result and Parquet": "after(files, 'write', 1)",
    "between files and commit": "before(Scorer, '_commit', 2)",
    "between commit and next claim": "after(Scorer, '_commit')",
    "in the metrics": "before(Scorer, '_count', 2)",
    "before the results are joined": "before(writing, 'joined')",
    "between the joined file and the end": "after(files, 'write_pieces')",
    "before the clean-up": "before(jobs.files, 'clean_up')",
}


def started(
    stage: str, job: int, directory: Path, *, of_batch: bool = True, **env: str
) -> subprocess.Popen[bytes]:
    environment = os.environ | child_environment(directory) | {"DJANGO_SETTINGS_MODULE": "config.settings"}
    environment |= {"BATCH_CHUNK_ROWS": str(CHUNK), "OMP_NUM_THREADS": "1"} | env
    program = PROGRAM.format(stage=stage, job=job, of_batch=of_batch)
    return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environment)


def lease_expires(batch: Batch) -> None:
    past = timezone.now() - dt.timedelta(seconds=1)
    Batch.objects.filter(pk=batch.pk, status="running").update(lease_until=past, attempts=0)


def assert_once(batch: Batch, rows: int) -> None:
    """Asserts that each row of the file has one row in the log and one in the results."""
    batch.refresh_from_db()
    assert (batch.status, batch.error) == ("succeeded", "")
    assert (batch.rows, batch.scored, batch.invalid) == (rows, rows, 0)
    answers = table(results.results(batch))
    assert [int(each["row"]) for each in answers] == list(range(rows))
    logged = Counter(Prediction.objects.filter(batch_id=batch.pk).values_list("key", flat=True))
    assert len(logged) == rows
    assert set(logged.values()) == {1}
    ids = {str(each) for each in Prediction.objects.filter(batch_id=batch.pk).values_list("id", flat=True)}
    assert {each["id"] for each in answers} == ids
    assert Prediction.objects.count() == rows


def keyed(rows: int) -> bytes:
    """Returns rows of cars with a key of their own."""
    head, *lines = cars_csv(rows).splitlines()
    return b"\n".join([b"_key," + head, *(b"row-%d,%s" % each for each in enumerate(lines))])


# `BATCH_KILLS=all` kills in every stage; otherwise one process after the other dies in every third.
CHOSEN = list(STAGES) if os.environ.get("BATCH_KILLS") == "all" else list(STAGES)[1::3]


def test_processes_killed_in_any_stage_leave_a_batch_that_another_ends_once(
    cars: ModelVersion, tmp_path_factory: pytest.TempPathFactory, settings: Any
) -> None:
    settings.BATCH_CHUNK_ROWS = CHUNK
    batch = created(cars, gzip.compress(keyed(ROWS)), gzip=True)
    died = 0
    for stage in CHOSEN:
        process = started(STAGES[stage], batch.pk, tmp_path_factory.mktemp("killed"))
        process.wait(120)
        died += process.returncode == -9
        lease_expires(batch)
    assert died == len(CHOSEN)
    leases.execute(Batch, batch.pk)
    assert_once(batch, ROWS)
    jobs.clean_up(batch.pk)
    kept = {"source", *batch.result_names.values(), *batch.chunks.values_list("result", flat=True)}
    assert set(default_storage.listdir(batch.folder)[1]) == kept, "files of dead attempts are removed"


def test_three_processes_share_a_batch_and_one_is_killed(
    cars: ModelVersion, tmp_path_factory: pytest.TempPathFactory, settings: Any
) -> None:
    rows = 2_000
    batch = created(cars, keyed(rows))
    env = {"BATCH_WORKERS": "3", "JOB_LEASE_SECONDS": "5"}
    main = started("together()", batch.pk, tmp_path_factory.mktemp("main"), **env)
    wait_for(lambda: BatchShare.objects.filter(batch=batch).count() == 2)
    first, second = BatchShare.objects.filter(batch=batch).order_by("pk")
    stage = "together()\n" + STAGES["between files and commit"]
    dying = started(stage, first.pk, tmp_path_factory.mktemp("a"), of_batch=False, **env)
    helping = started("together()", second.pk, tmp_path_factory.mktemp("b"), of_batch=False, **env)
    assert dying.wait(60) == -9
    assert helping.wait(120) == 0
    assert main.wait(120) == 0
    assert_once(batch, rows)
    owners = set(BatchChunk.objects.filter(batch=batch).values_list("lease_owner", flat=True))
    assert len(owners) == 3, "the killed process had committed a chunk before"
    assert BatchShare.objects.get(pk=second.pk).status == "succeeded"


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


@contextmanager
def running(batch: Batch) -> Iterator[leases.Lease]:
    """Claims a batch whose chunks exist, as a process does that has just prepared it."""
    lease = leases.claim(Batch, batch.pk)
    assert lease is not None
    yield lease


@pytest.fixture
def prepared(cars: ModelVersion, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """A batch of eight chunks, none of which is scored, whose process has died."""
    settings.BATCH_CHUNK_ROWS, settings.BATCH_WORKERS = CHUNK, 1
    batch = created(cars, keyed(ROWS))

    class Died(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "_score_chunks", die)
        with pytest.raises(Died):
            leases.execute(Batch, batch.pk)
    batch.refresh_from_db()
    assert (batch.status, batch.read_whole, batch.chunks.count()) == ("running", True, ROWS // CHUNK)
    return batch


def test_a_process_that_lost_its_chunk_writes_nothing(prepared: Batch) -> None:
    slow, quick = uuid.uuid4(), uuid.uuid4()
    chunk = chunks.claim(prepared.pk, slow)
    assert chunk is not None
    BatchChunk.objects.filter(pk=chunk.pk).update(lease_until=timezone.now() - dt.timedelta(seconds=1))
    again = chunks.claim(prepared.pk, quick)
    assert again is not None
    assert again.pk == chunk.pk
    with Scorer(prepared, slow) as scorer, pytest.raises(ChunkLost):
        scorer.score(chunk)
    assert not Prediction.objects.exists()
    with Scorer(prepared, quick) as scorer:
        scorer.score(again)
    with Scorer(prepared, slow) as scorer, pytest.raises(ChunkLost):
        scorer.score(chunk)
    assert Prediction.objects.count() == CHUNK
    lease_expires(prepared)
    done(prepared)
    assert_once(prepared, ROWS)


def test_a_process_that_lost_its_batch_inserts_no_chunks(cars: ModelVersion) -> None:
    """It was frozen for longer than its lease, and another process prepares the batch."""
    batch = created(cars, cars_csv(5))
    slow = leases.claim(Batch, batch.pk)
    assert slow is not None
    lease_expires(batch)
    quick = leases.claim(Batch, batch.pk)
    assert quick is not None
    section = Section(10, 20, 1, 2)
    with pytest.raises(leases.LeaseLost):
        chunks.add(slow, batch, [section], None)
    assert not batch.chunks.exists()
    chunks.add(quick, batch, [section], None)
    assert batch.chunks.count() == 1


def test_chunks_are_claimed_once_and_in_order(prepared: Batch) -> None:
    claimed = [chunks.claim(prepared.pk, uuid.uuid4()) for _ in range(9)]
    assert [chunk and chunk.number for chunk in claimed] == [0, 1, 2, 3, 4, 5, 6, 7, None]


def test_chunks_of_a_dead_process_are_free_at_once_for_the_next_one(prepared: Batch) -> None:
    """The next process of the batch does not wait for the claim to expire."""
    assert chunks.claim(prepared.pk, uuid.uuid4()) is not None
    lease_expires(prepared)
    began = time.monotonic()
    done(prepared)
    assert_once(prepared, ROWS)
    assert time.monotonic() - began < 30, "JOB_LEASE_SECONDS is 60"


def test_a_share_that_joins_late_helps_and_one_that_comes_too_late_ends(prepared: Batch) -> None:
    share = BatchShare.objects.create(registered_model=prepared.registered_model, batch=prepared)
    late = BatchShare.objects.create(registered_model=prepared.registered_model, batch=prepared)
    waiting = BatchShare.objects.create(registered_model=prepared.registered_model, batch=prepared)
    assert leases.execute(BatchShare, share.pk)
    assert chunks.state(prepared.pk).open == 0, "the share needs no process of the batch itself"
    lease_expires(prepared)
    assert leases.execute(BatchShare, late.pk)
    done(prepared)
    assert_once(prepared, ROWS)
    statuses = BatchShare.objects.filter(batch=prepared).order_by("pk").values_list("status", flat=True)
    assert list(statuses) == ["succeeded", "succeeded", "cancelled"], waiting


def test_a_commit_whose_result_got_lost_is_not_repeated(
    prepared: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks after the COMMIT, before its result arrives."""
    from predictions.log.connection import Unknown, Wire

    execute = Wire.execute
    broken = []

    def breaking(self: Wire, *args: Any) -> None:
        execute(self, *args)
        if len(broken) < 2:
            broken.append(1)
            self.close()
            raise Unknown("the connection broke")

    monkeypatch.setattr(Wire, "execute", breaking)
    lease_expires(prepared)
    done(prepared)
    assert broken == [1, 1]
    assert_once(prepared, ROWS)


def test_the_database_is_away_for_a_moment(prepared: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL ends all connections of the log in the middle of the batch."""
    commit = Scorer._commit
    ended = []

    def interrupted(self: Scorer, *args: Any) -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE application_name = 'vigia log' AND datname = current_database()"
            )
            ended.append(cursor.fetchone()[0])
        return commit(self, *args)

    monkeypatch.setattr(Scorer, "_commit", interrupted)
    lease_expires(prepared)
    done(prepared)
    assert sum(ended) >= 7
    assert_once(prepared, ROWS)


def test_time_limits_hold_for_each_stage_of_a_batch(cars: ModelVersion, settings: Any) -> None:
    """A batch takes as long as its rows need; a stage that does not end is stopped."""
    settings.JOB_SOFT_SECONDS = 0.01
    lease = leases.claim(Batch, created(cars, cars_csv(5)).pk)
    assert lease is not None
    with subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE) as child:
        output = supervisor._Output(child)
        supervision = supervisor._Supervision(lease, child, output)
        for stage in ("reading the file", "scoring: 10 of 30 rows", "scoring: 20 of 30 rows"):
            lease.report(stage, 5)
            time.sleep(0.02)
            assert not supervision._tick()
            assert child.poll() is None
        time.sleep(0.02)
        supervision._tick()
        assert child.wait(10) == -signal.SIGUSR1, "the child is told to stop"
        output.close()
