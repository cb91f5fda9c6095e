"""Where shadows' answers are written: by COPY, with the tallies, on a connection of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
from django.db import connections

COPY: Final = "COPY predictions_shadowanswer (rollout_id, prediction_id, prediction, probability) FROM STDIN"
TALLY: Final = """
    INSERT INTO predictions_shadowtally AS tally (rollout_id, hour, answered, dropped, failed)
    VALUES (%s, date_trunc('hour', now(), 'UTC'), %s, %s, %s)
    ON CONFLICT (rollout_id, hour) DO UPDATE SET answered = tally.answered + EXCLUDED.answered,
        dropped = tally.dropped + EXCLUDED.dropped, failed = tally.failed + EXCLUDED.failed
"""

Line = bytes
"""A row of `ShadowAnswer` in COPY's text format: rollout, prediction, answer in JSON, probability."""


class Store:
    """One connection, made when needed and made again after it broke. One thread uses it."""

    def __init__(self) -> None:
        self._connection: psycopg.Connection[Any] | None = None

    def write(self, answered: Sequence[Line], tallies: Mapping[int, Mapping[str, int]]) -> None:
        """Commits answers and tallies (by rollout: what is to be added to this hour's) together, or nothing.

        Raises
        ------
        psycopg.errors.ForeignKeyViolation : a rollout is gone.
        psycopg.Error, OSError : the database cannot be reached, or refused; `close` it.
        """
        if self._connection is None:
            parameters = connections["default"].get_connection_params()
            for name in ("cursor_factory", "context"):
                parameters.pop(name, None)
            parameters["application_name"] = "vigia shadow"
            self._connection = psycopg.connect(autocommit=True, **parameters)
            # What is lost with a server that falls over is a moment of comparison; the log's own flushes to
            # disk must not queue behind these.
            self._connection.execute("SET synchronous_commit = off")
        with self._connection.transaction(), self._connection.cursor() as cursor:
            if answered:
                with cursor.copy(COPY) as copy:
                    copy.write(b"".join(answered))
            # In one order everywhere: two processes that count for the same rollouts must not wait for each
            # other.
            for rollout_id, tally in sorted(tallies.items()):
                added = [tally.get(name, 0) for name in ("answered", "dropped", "failed")]
                cursor.execute(TALLY, [rollout_id, *added])

    def close(self) -> None:
        """Gives the connection up; the next write makes another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
