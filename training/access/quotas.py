"""Quotas: how many bytes a client key may store in a day by training rows and pushed versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.contrib.auth.models import User
from django.db import Error, connection, transaction
from django.db.models import QuerySet, Sum
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from knox.models import AuthToken

from core.errors import QuotaExceeded
from training.models import StoredUpload

Rows = QuerySet[StoredUpload, StoredUpload]
DAY: Final = timedelta(days=1)
QUOTAS: Final = 22_124
"""Class of the advisory lock under which a key's bytes are counted."""


@contextmanager
def charged(user: User, token: object, kind: StoredUpload.Kind, size: int) -> Iterator[StoredUpload]:
    """Counts `size` bytes against the quota of a client key, and yields their row; a request that raises is
    not counted. The caller has no transaction open, because the count locks the client's rows until its end.

    Parameters
    ----------
    token : the key of the request, or None for a session, which has the quota of its user.

    Raises
    ------
    QuotaExceeded : the key has stored too much in the last 24 hours, or pushed too often.
    """
    key = token.token_key if isinstance(token, AuthToken) else ""
    row = _count(user, key, kind, size)
    try:
        yield row
    except BaseException:
        with suppress(Error):  # the database has failed: the bytes count for a day
            row.delete()
        raise


def _count(user: User, key: str, kind: StoredUpload.Kind, size: int) -> StoredUpload:
    now = timezone.now()
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [QUOTAS, user.pk])
        rows = StoredUpload.objects.filter(client=user, key=key)
        rows.filter(at__lt=now - DAY).delete()
        _check_bytes(rows, size, now)
        if kind == StoredUpload.Kind.PUSH:
            _check_pushes(rows.filter(kind=kind), now)
        return StoredUpload.objects.create(client=user, key=key, kind=kind, size=size, at=now)


def _check_bytes(rows: Rows, size: int, now: datetime) -> None:
    quota = settings.UPLOAD_QUOTA_BYTES
    stored = rows.aggregate(total=Sum("size"))["total"] or 0
    if not quota or stored + size <= quota:
        return
    raise QuotaExceeded(
        f"this key has stored {filesizeformat(stored)} in the last 24 hours, and this request has "
        f"{filesizeformat(size)}; accepted: {filesizeformat(quota)} a day (UPLOAD_QUOTA_BYTES)",
        _until_free(rows, stored + size - quota, now),
    )


def _check_pushes(rows: Rows, now: datetime) -> None:
    quota = settings.PUSHES_PER_DAY
    if not quota or rows.count() < quota:
        return
    oldest = rows.order_by("at").values_list("at", flat=True)[rows.count() - quota]
    raise QuotaExceeded(
        f"this key has pushed {quota:,} versions in the last 24 hours; accepted: {quota:,} (PUSHES_PER_DAY)",
        _seconds_until(oldest, now),
    )


def _until_free(rows: Rows, needed: int, now: datetime) -> int:
    """Returns the seconds until `needed` bytes are older than a day; a day where they never fit."""
    for at, size in rows.order_by("at").values_list("at", "size"):
        needed -= size
        if needed <= 0:
            return _seconds_until(at, now)
    return int(DAY.total_seconds())


def _seconds_until(at: datetime, now: datetime) -> int:
    return max(1, int((at + DAY - now).total_seconds()) + 1)
