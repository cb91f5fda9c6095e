"""Versions that cannot be loaded: one event for each, until it is usable again.

A web process notices them in requests, whose transactions may be rolled back, and in its periodic check. A
thread of its own writes what a request noticed, so no request waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping
from typing import Final

from django.db import connection, transaction

from core.events import emit
from training.models import ModelVersion, UnusableArtifact

log = logging.getLogger(__name__)

NOTICE_SECONDS: Final = 30.0
"""A process writes what it notices about one version at most this often."""

_noticed: dict[int, float] = {}


def record(errors: Mapping[int, str], checked: Collection[int] = (), *, by_check: bool) -> None:
    """Writes the versions that have become unusable, with their events, and forgets those that are usable.

    Parameters
    ----------
    errors : reason by the version's primary key. checked : versions that the periodic check has verified; a
        version that a request could not load stays unusable until one is able to.
    """
    known = dict(UnusableArtifact.objects.values_list("pk", "by_check"))
    for version_id in errors.keys() - known.keys():
        with transaction.atomic():
            _, created = UnusableArtifact.objects.get_or_create(
                pk=version_id, defaults={"reason": errors[version_id], "by_check": by_check}
            )
            if created:
                _emit(version_id, errors[version_id])
    usable = [pk for pk in checked if pk not in errors and known.get(pk)]
    if usable:
        UnusableArtifact.objects.filter(pk__in=usable, by_check=True).delete()


def forget(version_id: int) -> None:
    """Forgets a version that this process has just loaded."""
    UnusableArtifact.objects.filter(pk=version_id).delete()


def notice(version_id: int, reason: str) -> None:
    """Records, in a thread, that a request could not load a version."""
    now = time.monotonic()
    if now - _noticed.get(version_id, float("-inf")) >= NOTICE_SECONDS:
        _noticed[version_id] = now
        name = f"unusable-{version_id}"
        threading.Thread(target=_write, args=(version_id, reason), name=name, daemon=True).start()


def _write(version_id: int, reason: str) -> None:
    try:
        record({version_id: reason}, by_check=False)
    except Exception as error:  # the thread has no caller; the next request notices it again
        log.warning("cannot record that version %s is unusable: %s", version_id, error)
        _noticed.pop(version_id, None)
    finally:
        connection.close()


def _emit(version_id: int, reason: str) -> None:
    version = ModelVersion.objects.select_related("registered_model").only(
        "number", "status", "registered_model__name"
    )
    row = version.get(pk=version_id)
    emit(
        "artifact.unusable",
        model=row.registered_model.name,
        subject=f"version {row.number}",
        data={
            "version": row.number,
            "active": row.status == ModelVersion.Status.ACTIVE,
            "reason": reason[:1000],
        },
    )
