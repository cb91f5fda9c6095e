"""Stacks of the tests of backups: real servers, the real commands, one churn model, rows of every kind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from backups import digest
from backups.create import BEFORE_RESTORE
from backups.database import Database
from backups.places import Folder

ROOT = Path(__file__).resolve().parents[2]
DROPPED = (
    "DATABASE_URL",
    "REDIS_URL",
    "VIGIA_VAR",
    "VIGIA_LOCAL",
    "DJANGO_SETTINGS_MODULE",
    "TEST_VAR",
    "MAKEFLAGS",
)

FILL = """
import datetime as dt
from django.contrib.auth.models import Permission, User
from django.utils import timezone
from core.events import placing
from core.models import Subscription
from recommender.models import Interaction, Movie
from tests.trained import train_sample
from training.access import client_keys

user = client_keys.client_with_every_right("caller")
user.user_permissions.add(Permission.objects.get(codename="view_authtoken"))
Subscription.objects.create(name="deploy", owner=user, channel="webhook", address="http://127.0.0.1:9/")
train_sample("churn", rows=600)
placing.place_all()  # later events wait for a dispatcher
for number in range(3):
    print("KEY", client_keys.issue(user))
User.objects.create_user("leaver")
User.objects.create_user("sleeper")
Movie.objects.create(id=7, title="Vertigo")
for number in range(5):
    Interaction.objects.create(user=f"customer-{number}", movie_id=7, kind="liked", at=timezone.now())
"""


class Stack:
    """A var directory, whose PostgreSQL and Valkey run between `start` and `stop`."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")
        roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
        self.var = Path(tempfile.mkdtemp(prefix="vigia-backup-", dir=memory if roomy else None))
        self.var.chmod(0o755)
        self.env = {name: value for name, value in os.environ.items() if name not in DROPPED}
        self.env |= {"VIGIA_VAR": str(self.var), "VENV": sys.prefix, "OMP_NUM_THREADS": "1"}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        ready = self.var / "test-ready"
        ready.unlink(missing_ok=True)
        command = f"import pathlib, time; pathlib.Path({str(ready)!r}).touch(); time.sleep(3600)"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local.stack", "--", sys.executable, "-c", command],
            cwd=ROOT, env=self.env, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(600):
            if ready.exists():
                return
            assert self.process.poll() is None, "the stack has ended"
            time.sleep(0.1)
        raise AssertionError("the stack does not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.var)

    def command(self, name: str, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        """Starts ./backup or ./restore."""
        return subprocess.Popen(
            [ROOT / name, "--local", *map(str, arguments)],
            cwd=self.var, env=self.env | environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, name: str, *arguments: str | Path, code: int = 0, **environment: str) -> str:
        """Runs ./backup or ./restore; returns its output."""
        process = self.command(name, *arguments, **environment)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == code, output
        return output

    def beside(self, *command: str | Path, code: int = 0, **environment: str) -> str:
        """Runs a command beside the stack; returns its output."""
        done = subprocess.run(
            [sys.executable, "-m", "local.stack", "--reuse", "--", *command],
            cwd=ROOT, env=self.env | environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def manage(self, *arguments: str | Path, code: int = 0, **environment: str) -> str:
        return self.beside(sys.executable, "manage.py", *arguments, code=code, **environment)

    def fill(self) -> list[str]:
        """Migrates and adds rows; returns the client's keys."""
        self.manage("bootstrap", "--no-models", "--no-accounts")
        output = self.manage("shell", "--no-imports", "-c", FILL)
        return [line.split()[1] for line in output.splitlines() if line.startswith("KEY ")]

    @property
    def url(self) -> str:
        return str(json.loads((self.var / "stack.json").read_text())["database_url"])

    def sql(self, statement: str, *parameters: Any, alone: bool = False) -> list[Any]:
        """Returns the first column of a statement's rows. alone: outside a transaction."""
        with psycopg.connect(self.url, autocommit=alone) as connection:
            cursor = connection.execute(statement, parameters)  # type: ignore[call-overload]
            return [row[0] for row in cursor.fetchall()] if cursor.description else []

    def digests(self) -> dict[str, str]:
        """Returns the digest of every table; a restored place has no heartbeats and no sessions."""
        return dict(digest.lines(Database(self.url), without={"training_heartbeat", "django_session"}))

    def copy_key_to(self, other: Stack) -> None:
        shutil.copy(self.var / "artifact-key", other.var / "artifact-key")


def backup_in(folder: Path) -> Path:
    """Returns the newest backup of a folder."""
    return folder / [name for name in Folder(folder).names() if BEFORE_RESTORE not in name][-1]
