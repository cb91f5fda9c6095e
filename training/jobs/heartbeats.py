"""Heartbeats in the database: when each background process was last alive, and when each periodic task began.

Times come from the database's clock, so the clocks of several machines need not agree.
"""

from __future__ import annotations

from typing import Final

from django.db import connection

from training.models import Heartbeat

ROLES: Final = ("worker", "housekeeping", "beat", "events")
EXPECTED_SECONDS: Final = 30.0
"""A live process writes a heartbeat at least this often."""
BACKUP: Final = "backup"
"""Role of the service that makes backups, which sends a heartbeat while they succeed in time."""
BACKUP_SECONDS: Final = 300.0
FORGOTTEN_SECONDS: Final = 3600.0
"""A process that has been silent for this long counts as removed."""
TASK: Final = "task"

_WRITE: Final = """
    INSERT INTO training_heartbeat (name, role, at) VALUES (%s, %s, clock_timestamp())
    ON CONFLICT (name) DO UPDATE SET role = EXCLUDED.role, at = EXCLUDED.at
"""
_AGES: Final = "SELECT role, name, extract(epoch FROM clock_timestamp() - at)::float FROM training_heartbeat"
# A conditional UPDATE: if two processes find a task overdue, one of them begins it.
_BEGIN: Final = """
    INSERT INTO training_heartbeat AS known (name, role, at) VALUES (%s, %s, clock_timestamp())
    ON CONFLICT (name) DO UPDATE SET at = EXCLUDED.at
    WHERE known.at < clock_timestamp() - make_interval(secs => %s) RETURNING (xmax = 0)
"""


def write(name: str, role: str) -> None:
    """Records that a process is alive or that a task begins now."""
    with connection.cursor() as cursor:
        cursor.execute(_WRITE, [name[:255], role])


def leave(name: str) -> None:
    """Removes the heartbeat of a process that ends on purpose, so that `silent` does not report it."""
    Heartbeat.objects.filter(pk=name[:255]).delete()


def begin_if_overdue(task: str, seconds: float) -> bool:
    """Records that a task begins now if it last began more than `seconds` ago; returns whether it did.

    Only one of several callers gets True. The first call for a task only records the time and returns False.
    """
    with connection.cursor() as cursor:
        cursor.execute(_BEGIN, [task[:255], TASK, seconds])
        row = cursor.fetchone()
    return row is not None and not row[0]


def silent() -> dict[str, str]:
    """Returns a message for each role whose processes are silent or missing."""
    ages: dict[str, dict[str, float]] = {role: {} for role in (*ROLES, BACKUP)}
    with connection.cursor() as cursor:
        cursor.execute(_AGES)
        for role, name, age in cursor.fetchall():
            if role in ages:
                ages[role][name] = age
    messages = {}
    # Not every installation has this service; one that has had it should miss it.
    backup = min(ages.pop(BACKUP).values(), default=0.0)
    if backup > BACKUP_SECONDS:
        messages[BACKUP] = f"backups have not been in order for {backup:.0f} s: see the log of backup"
    for role, by_name in ages.items():
        alive = [age for age in by_name.values() if age <= EXPECTED_SECONDS]
        late = [age for age in by_name.values() if EXPECTED_SECONDS < age <= FORGOTTEN_SECONDS]
        if not by_name:
            messages[role] = f"no {role} process has been seen yet: start one"
        elif not alive:
            messages[role] = f"no {role} process has been seen for {min(by_name.values()):.0f} s: start one"
        elif late:
            several = f"{len(late)} of {len(alive) + len(late)} {role} processes"
            messages[role] = f"{several} have been silent for more than {EXPECTED_SECONDS:.0f} s"
    return messages
