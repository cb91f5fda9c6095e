"""Whether a restore of this database was interrupted (`backups.restore` leaves a table until its end)."""

from __future__ import annotations

from typing import Final

from django.db import connection

MARKER: Final = "vigia_restore"
MESSAGE: Final = "a restore of the database was not finished: run the same ./restore command again"


def unfinished() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [f"public.{MARKER}"])
        return bool(cursor.fetchone()[0])
