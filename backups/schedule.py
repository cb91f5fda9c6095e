"""The service that makes a backup every BACKUP_EVERY hours and adds tombstones every minute.

It sends a heartbeat only while backups succeed in time, so that an absent backup is noticed: the health check
of the container fails, `/healthz/ready` lists `backup` under `degraded`, and the log has the reason.
"""

from __future__ import annotations

import datetime as dt
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

import psycopg

from backups import tombstones
from backups.create import BEFORE_RESTORE, create, work_directory
from backups.database import Database, erasure_count, has_table, unfinished
from backups.errors import BackupError
from backups.places import Bucket, Folder
from core import heartbeat_files

ROLE: Final = "backup"
BEAT_SECONDS: Final = 5.0
MINUTE: Final = 60.0
RETRY_SECONDS: Final = 300.0
OVERDUE_INTERVALS: Final = 1.25
"""A backup is overdue after this many intervals, and an hour."""
HEARTBEAT: Final = """
    INSERT INTO training_heartbeat (name, role, at) VALUES (%s, %s, clock_timestamp())
    ON CONFLICT (name) DO UPDATE SET role = EXCLUDED.role, at = EXCLUDED.at
"""


def log(message: str) -> None:
    sys.stderr.write(f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S} backup {message}\n")
    sys.stderr.flush()


def time_of(name: str) -> float:
    """Returns the time of a backup, in seconds since 1970, from its name."""
    moment = dt.datetime.strptime(name[6:22], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    return moment.timestamp()


@dataclass
class Schedule:
    """Makes backups when they are due. every : seconds between two backups. exported : number of
    erasures of which the place has tombstones."""

    source: Database
    place: Folder | Bucket
    every: float
    keep: int
    encrypt_to: list[str]
    last: float | None = None
    exported: int | None = None
    failure: str = ""
    retry_at: float = 0.0
    started: float = field(default_factory=time.time)
    stopped: threading.Event = field(default_factory=threading.Event)

    def problem(self) -> str:
        """Returns why backups are not in order; empty while they are."""
        if self.failure:
            return self.failure
        age = time.time() - (self.last or self.started)
        if age > self.every * OVERDUE_INTERVALS + 3600:
            return f"the last backup is {age / 3600:.0f} hours old"
        return ""

    def step(self) -> None:
        """Makes a backup if one is due, and adds tombstones; a failure is logged and tried again."""
        now = time.time()
        if now < self.retry_at:
            return
        try:
            with self.source.connect() as connection:
                if unfinished(connection) is not None or not has_table(connection, "training_heartbeat"):
                    return  # a restore, or the first migration, is under way
                erasures = erasure_count(connection)
            if self.last is None:
                names = [name for name in self.place.names() if BEFORE_RESTORE not in name]
                self.last = time_of(names[-1]) if names else 0.0
            if now >= self.last + self.every:
                with work_directory() as work:
                    backup = create(self.source, self.place, work, encrypt_to=self.encrypt_to, keep=self.keep)
                self.last = time_of(backup.name)
                log(f"{self.place.label}/{backup.name}: {backup.size:,} bytes in {time.time() - now:.0f} s")
                for absent in backup.manifest.absent:
                    log(f"a row refers to {absent}, which is missing or damaged in the store")
                for name in backup.removed:
                    log(f"removed {name}: {self.keep} backups are kept")
            elif erasures != self.exported:  # the file may be long
                tombstones.export(self.source, self.place)
            else:
                self.place.names()  # whether it is still there
            self.exported = erasures
            if self.failure:
                log("recovered")
            self.failure = ""
        except (BackupError, OSError, psycopg.Error) as error:
            message = " ".join(str(error).split())
            if message != self.failure:
                log(f"failed: {message}")
            self.failure = message
            self.retry_at = time.time() + RETRY_SECONDS

    def send_heartbeats(self) -> None:
        """Sends heartbeats while backups are in order; a thread's function."""
        logged = ""
        while not self.stopped.is_set():
            problem = self.problem()
            if problem and problem not in (logged, self.failure):
                log(problem)
            logged = problem
            if not problem:
                heartbeat_files.touch(ROLE)
                try:
                    with self.source.connect() as connection:
                        if has_table(connection, "training_heartbeat"):
                            connection.execute(HEARTBEAT, [ROLE, ROLE])
                except (BackupError, psycopg.Error):
                    pass  # the next step reports it
            self.stopped.wait(BEAT_SECONDS)

    def run(self) -> int:
        def stop(number: int, frame: FrameType | None) -> None:
            self.stopped.set()
            raise SystemExit(0)

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        hours, kept = self.every / 3600, self.keep or "all"
        log(f"every {hours:g} hours to {self.place.label}, {kept} are kept")
        threading.Thread(target=self.send_heartbeats, name="heartbeat", daemon=True).start()
        while True:
            self.step()
            self.stopped.wait(MINUTE)
