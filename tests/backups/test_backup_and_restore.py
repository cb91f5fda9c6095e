"""./backup and ./restore with real servers: nothing is lost or half, and what was erased stays erased."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pyrage
import pytest

from backups.database import STORED_BYTES_LOCK, Database
from tests.backups.stacks import ROOT, Stack, backup_in

logging.getLogger("httpx").setLevel(logging.WARNING)

ROW = {
    "gender": "Female", "SeniorCitizen": 0, "Partner": "Yes", "Dependents": "No", "tenure": 12,
    "PhoneService": "Yes", "MultipleLines": "No", "InternetService": "DSL", "OnlineSecurity": "No",
    "OnlineBackup": "Yes", "DeviceProtection": "No", "TechSupport": "No", "StreamingTV": "No",
    "StreamingMovies": "No", "Contract": "Month-to-month", "PaperlessBilling": "Yes",
    "PaymentMethod": "Mailed check", "MonthlyCharges": 50.0, "TotalCharges": 600.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def source() -> Iterator[tuple[Stack, list[str]]]:
    """A running stack with rows, and its client's keys. Tests only add rows."""
    stack = Stack()
    stack.start()
    keys = stack.fill()
    yield stack, keys
    stack.remove()


@pytest.fixture(scope="module", autouse=True)
def backup(source: tuple[Stack, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of the source, before a test adds rows."""
    folder = tmp_path_factory.mktemp("backup")
    source[0].run("backup", folder)
    return backup_in(folder)


@pytest.fixture
def empty(source: tuple[Stack, list[str]]) -> Iterator[Stack]:
    """An empty var directory with the artifact key of the source."""
    stack = Stack()
    source[0].copy_key_to(stack)
    yield stack
    stack.remove()


@contextmanager
def web(stack: Stack) -> Iterator[str]:
    """Runs a web process; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "local.stack", "--reuse", "--",
         sys.executable, "-m", "gunicorn", "--config", "config/gunicorn.py", "web.asgi"],
        cwd=ROOT, env=stack.env | {"PORT": str(port), "WEB_CONCURRENCY": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                if httpx.get(f"{address}/healthz/ready", timeout=5).json().get("active_models"):
                    break
            except (httpx.HTTPError, ValueError):
                pass
            time.sleep(0.2)
        else:
            raise AssertionError("web does not answer")
        yield address
    finally:
        process.terminate()
        process.wait(30)


def predict(client: httpx.Client, address: str, key: str, reference: str) -> list[str]:
    response = client.post(
        f"{address}/api/v1/models/churn/predictions/",
        json=ROW | {"_key": reference},
        headers={"Authorization": f"Token {key}"},
    )
    assert response.status_code == 200, response.text
    return [each["id"] for each in response.json()["predictions"]]


def test_a_backup_under_load_holds_every_earlier_answer_and_restores_row_by_row(
    source: tuple[Stack, list[str]], empty: Stack, tmp_path: Path
) -> None:
    stack, keys = source
    answered: list[str] = []
    stopped = threading.Event()

    def call(number: int) -> None:
        with httpx.Client(timeout=30) as client:
            while not stopped.is_set():
                answered.extend(predict(client, address, keys[0], f"customer-{number}"))

    with web(stack) as address:
        callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
        for caller in callers:
            caller.start()
        time.sleep(1)
        before = list(answered)
        stack.run("backup", tmp_path / "loaded")
        stopped.set()
        for caller in callers:
            caller.join()
    assert len(before) > 20 and len(answered) > len(before)

    stack.run("backup", tmp_path / "idle")
    restored = empty.run("restore", backup_in(tmp_path / "loaded"))
    assert "restored:" in restored
    empty.start()
    held = {str(pk) for pk in empty.sql("SELECT id FROM predictions_prediction")}
    assert set(before) <= held
    assert "2 problem" not in empty.manage("check", "--database", "default")
    # In another cluster, with other transaction ids, events that waited are placed behind the earlier ones.
    unplaced = empty.sql("SELECT id FROM core_event WHERE position IS NULL ORDER BY id")
    last = empty.sql("SELECT position FROM core_event WHERE position IS NOT NULL ORDER BY position")
    assert len(unplaced) >= 3 and len(last) >= 2
    empty.manage("shell", "--no-imports", "-c", "from core.events import placing; placing.place_all()")
    assert empty.sql("SELECT id FROM core_event WHERE position > %s ORDER BY position", last[-1]) == unplaced
    waiting = empty.sql("SELECT event_id FROM core_delivery WHERE state = 'pending' ORDER BY position")
    assert waiting == empty.sql("SELECT id FROM core_event ORDER BY position")
    empty.manage("bootstrap", "--no-models", "--no-accounts")
    with (
        web(empty) as address,
        httpx.Client(timeout=30) as client,
    ):  # models load: digests and signatures hold
        predict(client, address, keys[0], "afterwards")
    empty.stop()

    again = empty.run("restore", backup_in(tmp_path / "idle"), code=1)
    assert "not empty" in again
    empty.run("restore", backup_in(tmp_path / "idle"), "--replace")
    empty.start()
    assert empty.digests() == stack.digests()
    assert {path.name for path in (empty.var / "store").rglob("*") if path.is_file()} == {
        path.name for path in (stack.var / "store").rglob("*") if path.is_file()
    }
    [copy] = (tmp_path / "idle").glob("*-before-restore.tar")
    assert copy.stat().st_mode & 0o777 == 0o600


def test_nobody_removes_bytes_between_the_snapshot_and_their_second_name(
    source: tuple[Stack, list[str]],
) -> None:
    free: list[bool] = []

    def link() -> None:
        with psycopg.connect(source[0].url) as other:
            row = other.execute("SELECT pg_try_advisory_xact_lock(%s, 0)", [STORED_BYTES_LOCK]).fetchone()
            free.extend(row or ())

    with Database(source[0].url).snapshot(link), psycopg.connect(source[0].url) as other:
        row = other.execute("SELECT pg_try_advisory_xact_lock(%s, 0)", [STORED_BYTES_LOCK]).fetchone()
        free.extend(row or ())
    assert free == [False, True]


def copied(backup: Path, folder: Path) -> Path:
    for path in backup.parent.iterdir():
        shutil.copy(path, folder)
    return folder / backup.name


def test_a_damaged_backup_is_refused_before_anything_is_touched(
    backup: Path, empty: Stack, tmp_path: Path
) -> None:
    mine = copied(backup, tmp_path)
    content = bytearray(mine.read_bytes())
    content[len(content) // 2] ^= 1
    mine.write_bytes(content)
    assert "truncated or damaged" in empty.run("restore", mine, code=1)
    (tmp_path / f"{mine.name}.sha256").unlink()
    assert "is damaged" in empty.run("restore", mine, code=1)
    mine.write_bytes(backup.read_bytes()[:-200_000])
    assert "truncated" in empty.run("restore", mine, code=1)
    empty.start()
    assert empty.sql("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [0]
    assert not (empty.var / "store").exists()


def test_a_running_service_may_ask_about_a_backup(source: tuple[Stack, list[str]], backup: Path) -> None:
    assert "parts are whole" in source[0].run("restore", backup, "--verify")
    assert "not empty" in source[0].run("restore", backup, "--check", code=1)


def test_another_artifact_key_is_named_at_once(backup: Path, empty: Stack) -> None:
    (empty.var / "artifact-key").write_text("another key, of enough characters to be one\n")
    assert "ARTIFACT_KEY is not the one of the backup" in empty.run("restore", backup, code=1)
    assert "could be restored" in empty.run("restore", backup, "--other-key", "--check")


def test_a_lost_file_of_tombstones_is_named(backup: Path, empty: Stack, tmp_path: Path) -> None:
    mine = copied(backup, tmp_path)
    (tmp_path / "tombstones.jsonl").unlink()
    assert "would come back" in empty.run("restore", mine, code=1)
    assert "could be restored" in empty.run("restore", mine, "--without-tombstones", "--check")


def test_a_backup_of_a_newer_release_is_refused_and_of_an_older_one_is_migrated(
    source: tuple[Stack, list[str]], empty: Stack, tmp_path: Path
) -> None:
    stack, _ = source
    newer = "INSERT INTO django_migrations (app, name, applied) VALUES ('training', '9999_later', now())"
    stack.sql(newer)
    try:
        stack.run("backup", tmp_path / "newer")
    finally:
        stack.sql("DELETE FROM django_migrations WHERE name = '9999_later'")
    message = empty.run("restore", backup_in(tmp_path / "newer"), code=1)
    assert "newer than this" in message and "training.9999_later" in message

    stack.sql("CREATE DATABASE older", alone=True)
    older = stack.url.rpartition("/")[0] + "/older"
    for application, migration in (("recommender", "0002"), ("predictions", "0013")):
        stack.manage("migrate", application, migration, "--verbosity=0", DATABASE_URL=older)
    stack.run("backup", tmp_path / "older", DATABASE_URL=older)
    empty.run("restore", backup_in(tmp_path / "older"))
    empty.start()
    empty.manage("migrate", "--check")


def test_an_encrypted_backup_opens_with_its_private_key_alone(
    source: tuple[Stack, list[str]], empty: Stack, tmp_path: Path
) -> None:
    identity, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    (tmp_path / "key.txt").write_text(f"# created: today\n{identity}\n")
    (tmp_path / "other.txt").write_text(f"{other}\n")
    source[0].run("backup", tmp_path / "sealed", "--encrypt-to", str(identity.to_public()))
    backup = backup_in(tmp_path / "sealed")
    assert backup.name.endswith(".tar.age") and b"PGDMP" not in backup.read_bytes()
    assert "--identity" in empty.run("restore", backup, code=1)
    assert "cannot be decrypted" in empty.run("restore", backup, "--identity", tmp_path / "other.txt", code=1)
    (tmp_path / "sealed" / f"{backup.name}.sha256").unlink()
    content = bytearray(backup.read_bytes())
    content[-5] ^= 1
    (tmp_path / "sealed/vigia-20200101T000000Z.tar.age").write_bytes(content)
    empty.run("restore", tmp_path / "sealed/vigia-20200101T000000Z.tar.age",
              "--identity", tmp_path / "key.txt", code=1)  # fmt: skip
    assert "restored:" in empty.run("restore", backup, "--identity", tmp_path / "key.txt")
    empty.start()
    assert empty.digests() == source[0].digests()


ERASE = """
SET LOCAL vigia.maintenance = 'erase';
DELETE FROM predictions_prediction WHERE key = 'to-erase';
DELETE FROM predictions_outcome WHERE key = 'to-erase';
DELETE FROM recommender_interaction WHERE "user" = 'customer-1';
"""
OLD_MONTH = """
from predictions.log import partitions
from django.utils import timezone
import datetime as dt
partitions.ensure(dt.datetime(2025, 3, 1, tzinfo=dt.UTC), 0)
"""
OLD_ROW = """
INSERT INTO predictions_prediction
    (id, registered_model_id, version_id, inputs, prediction, warnings, request_id)
SELECT '01955000-0000-7000-8000-000000000001', registered_model_id, id, '[]', 'true', '[]', ''
FROM training_modelversion
"""


def test_what_was_erased_stays_erased_in_every_order(
    source: tuple[Stack, list[str]], backup: Path, tmp_path: Path
) -> None:
    (filled, keys), stack, folder = source, Stack(), tmp_path / "backups"
    try:
        filled.copy_key_to(stack)
        stack.run("restore", backup)
        stack.start()
        stack.manage("shell", "--no-imports", "-c", OLD_MONTH)
        stack.sql(OLD_ROW)
        with web(stack) as address, httpx.Client(timeout=30) as client:
            [erased] = predict(client, address, keys[0], "to-erase")
            [kept] = predict(client, address, keys[0], "to-keep")
            response = client.post(
                f"{address}/api/v1/models/churn/outcomes/",
                json=[{"key": "to-erase", "actual": True}, {"key": "to-keep", "actual": True}],
                headers={"Authorization": f"Token {keys[0]}"},
            )
            assert response.status_code == 200, response.text
        stack.run("backup", folder)
        first = backup_in(folder)

        stack.sql(ERASE)
        stack.manage("drop_log", "--before", "2025-06")
        revoke = f"""
from knox.auth import TokenAuthentication
from knox.models import AuthToken
from django.contrib.auth.models import User
AuthToken.objects.filter(token_key={keys[1][:15]!r}).delete()
User.objects.get(username="leaver").delete()
User.objects.filter(username="sleeper").update(is_active=False)
User.objects.filter(username="caller").update(is_active=False)
User.objects.filter(username="caller").update(is_active=True)
"""
        stack.manage("shell", "--no-imports", "-c", revoke)

        def check() -> None:
            assert stack.sql("SELECT id::text FROM predictions_prediction ORDER BY id") == [kept]
            assert stack.sql("SELECT key FROM predictions_outcome") == ["to-keep"]
            users = stack.sql('SELECT "user" FROM recommender_interaction ORDER BY 1')
            assert users == [f"customer-{number}" for number in (0, 2, 3, 4)]
            assert stack.sql("SELECT count(*) FROM knox_authtoken") == [2]
            names = "SELECT username || ' ' || is_active FROM auth_user ORDER BY 1"
            assert stack.sql(names) == ["caller true", "sleeper false"]
            assert stack.sql("SELECT to_regclass('predictions_prediction_2025_03') IS NULL") == [True]
            assert stack.sql("SELECT count(*) FROM predictions_removedmonth") == [1]

        check()
        assert erased not in (kept,)
        # The erasures are in the present database alone.
        stack.stop()
        output = stack.run("restore", first, "--replace")
        assert "rows erased again" in output
        stack.start()
        check()
        # The present database is lost: the file beside the backups has the erasures.
        stack.stop()
        shutil.rmtree(stack.var / "postgres")
        shutil.rmtree(stack.var / "store")
        stack.run("restore", first)
        stack.start()
        check()
        # Rows that got an erased id after the restore are others, and stay.
        low = "SELECT setval(pg_get_serial_sequence('recommender_interaction', 'id'), 1, true)"
        stack.sql(low)
        stack.sql(
            'INSERT INTO recommender_interaction (id, "user", movie_id, kind, at, received_at) '
            "VALUES (2, 'newcomer', 7, 'liked', now(), now())"
        )
        stack.run("backup", folder)
        stack.stop()
        # This backup holds the erasures itself: nothing is new.
        assert "tombstones: 0 of" in stack.run("restore", backup_in(folder), "--replace", "--no-safety-copy")
        stack.start()
        assert "newcomer" in stack.sql('SELECT "user" FROM recommender_interaction')
    finally:
        stack.remove()


def test_a_restore_killed_at_any_moment_is_finished_by_the_next_one(backup: Path, empty: Stack) -> None:
    seed = int(os.environ.get("KILL_SEED") or time.time())
    moments = random.Random(seed)
    started = time.monotonic()
    empty.run("restore", backup)
    whole = time.monotonic() - started
    empty.start()
    expected = empty.digests()
    empty.stop()
    options: list[str] = ["--replace", "--no-safety-copy"]
    for _ in range(int(os.environ.get("KILL_TIMES") or 1)):
        process = empty.command("restore", backup, *options)
        time.sleep(moments.uniform(0.1, 0.9) * whole)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        empty.start()
        if empty.sql("SELECT to_regclass('vigia_restore') IS NOT NULL") == [True]:
            message = empty.manage("bootstrap", "--no-models", "--no-accounts", code=1)
            assert "a restore of the database was not finished" in message, seed
            assert "vigia.E012" in empty.manage("check", "--database", "default", code=1)
        else:  # as it was, or finished
            assert empty.digests() == expected, seed
        empty.stop()
    empty.run("restore", backup, *options)
    empty.start()
    assert empty.digests() == expected, seed


def test_a_backup_killed_at_any_moment_leaves_no_part_under_its_name(
    source: tuple[Stack, list[str]], tmp_path: Path
) -> None:
    stack, _ = source
    started = time.monotonic()
    stack.run("backup", tmp_path)
    whole = time.monotonic() - started
    moments = random.Random(int(os.environ.get("KILL_SEED") or time.time()))
    for _ in range(int(os.environ.get("KILL_TIMES") or 2)):
        process = stack.command("backup", tmp_path)
        time.sleep(moments.uniform(0.3, 1.0) * whole)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    time.sleep(1)
    stack.run("backup", tmp_path)
    names = [path.name for path in tmp_path.iterdir()]
    assert not [name for name in names if name.startswith(".")]
    assert not (stack.var / "backup-work").exists()
    for name in names:
        if name.endswith(".tar"):
            assert "parts are whole" in stack.beside(
                sys.executable, "-m", "backups", "restore", "--verify", tmp_path / name
            )


def test_a_full_disk_leaves_the_old_backups_and_no_new_one(
    source: tuple[Stack, list[str]], tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    listing = tmp_path / "listing"
    script = (
        f"mount -t tmpfs -o size=300k none '{small}' && touch '{small}/vigia-20200101T000000Z.tar' && "
        f"'{ROOT}/backup' --local '{small}'; code=$?; ls -A '{small}' > '{listing}'; exit $code"
    )
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        ["unshare", "--mount", *user, "sh", "-c", script],
        env=source[0].env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "is full" in done.stderr, done.stderr
    assert listing.read_text().split() == ["vigia-20200101T000000Z.tar"]


def test_the_oldest_backups_beyond_the_number_are_removed(
    source: tuple[Stack, list[str]], tmp_path: Path
) -> None:
    for day in (1, 2, 3):
        (tmp_path / f"vigia-2020010{day}T000000Z.tar").touch()
    (tmp_path / "vigia-20200101T000000Z-before-restore.tar").touch()
    source[0].run("backup", tmp_path, "--keep", "2")
    names = sorted(path.name for path in tmp_path.glob("vigia-*.tar"))
    assert names[:2] == ["vigia-20200101T000000Z-before-restore.tar", "vigia-20200103T000000Z.tar"]
    assert len(names) == 3


def test_the_schedule_makes_a_backup_and_sends_no_heartbeat_after_a_failure(
    source: tuple[Stack, list[str]], tmp_path: Path
) -> None:
    stack, _ = source
    environment = stack.env | {
        "DATABASE_URL": stack.url, "BACKUP_TO": str(tmp_path / "kept"), "BACKUP_EVERY": "24",
        "METRICS_DIR": str(tmp_path / "metrics"),
    }  # fmt: skip

    def health(seconds: str) -> int:
        command = [sys.executable, "-m", "docker.health", "backup", "--seconds", seconds]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False).returncode

    def run(until: str, further: float) -> str:
        """Runs the schedule until its log holds a text, and for some more seconds; returns the log."""
        with (tmp_path / "log").open("w+") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "backups", "schedule"], cwd=ROOT, env=environment, stderr=log
            )
            for _ in range(1200):
                if until in (tmp_path / "log").read_text():
                    break
                time.sleep(0.1)
            time.sleep(further)
            process.terminate()
            assert process.wait(30) == 0
            return (tmp_path / "log").read_text()

    assert health("60") == 1
    assert "bytes in" in run("bytes in", 1)
    assert health("60") == 0
    assert len(list((tmp_path / "kept").glob("vigia-*.tar"))) == 1
    assert "bytes in" not in run("every 24 hours", 4)  # none is due
    assert stack.sql("SELECT role FROM training_heartbeat WHERE name = 'backup'") == ["backup"]

    environment["BACKUP_TO"] = "/dev/null/nowhere"
    log = run("failed:", 7)
    assert "failed:" in log and "cannot be used" in log
    assert health("6") == 1
    stack.sql("UPDATE training_heartbeat SET at = at - interval '10 minutes' WHERE name = 'backup'")
    with web(stack) as address:
        degraded = httpx.get(f"{address}/healthz/ready", timeout=10).json()["degraded"]
    stack.sql("DELETE FROM training_heartbeat WHERE name = 'backup'")
    assert [each["check"] for each in degraded if each["check"] == "backup"] == ["backup"]


def test_the_digests_of_two_databases_tell_one_changed_row(
    source: tuple[Stack, list[str]], tmp_path: Path
) -> None:
    stack, _ = source
    before = tmp_path / "before"
    before.write_text(stack.beside(sys.executable, "-m", "backups.digest"))
    assert ", 0 differ" in stack.beside(sys.executable, "-m", "backups.digest", "--compare", before)
    stack.sql("UPDATE auth_user SET first_name = 'Ana' WHERE username = 'caller'")
    output = stack.beside(sys.executable, "-m", "backups.digest", "--compare", before, code=1)
    assert "auth_user: " in output and ", 1 differ" in output
