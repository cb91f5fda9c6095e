"""Writes shadows' answers by COPY, with the tallies, on a separate connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
from django.db import connections

COPY: Final = (
    "COPY predictions_shadowanswer "
    "(rollout_id, prediction_id, prediction, probability, probabilities) FROM STDIN"
)
TALLY: Final = """
    INSERT INTO predictions_shadowtally AS tally (rollout_id, hour, answered, dropped, failed)
    VALUES (%s, date_trunc('hour', now(), 'UTC'), %s, %s, %s)
    ON CONFLICT (rollout_id, hour) DO UPDATE SET answered = tally.answered + EXCLUDED.answered,
        dropped = tally.dropped + EXCLUDED.dropped, failed = tally.failed + EXCLUDED.failed
"""

Line = bytes
"""A row of `ShadowAnswer` in COPY's text format: rollout, prediction, answer in JSON, probability, and every
class's probability in JSON."""


class Store:
    """A connection that opens when needed and opens again after it broke. One thread uses it."""

    def __init__(self) -> None:
        self._connection: psycopg.Connection[Any] | None = None

    def write(self, answered: Sequence[Line], tallies: Mapping[int, Mapping[str, int]]) -> None:
        """Commits answers and tallies (rollout id -> rows to add to this hour) together, or neither.

        Raises
        ------
        psycopg.errors.ForeignKeyViolation : a rollout was deleted.
        psycopg.Error, OSError : the database is unreachable or rejected the rows; call `close`.
        """
        if self._connection is None:
            parameters = connections["default"].get_connection_params()
            for name in ("cursor_factory", "context"):
                parameters.pop(name, None)
            parameters["application_name"] = "vigia shadow"
            self._connection = psycopg.connect(autocommit=True, **parameters)
            # A crash of the server loses a moment of comparison only; the log's own flushes to disk must not
            # queue behind these.
            self._connection.execute("SET synchronous_commit = off")
        with self._connection.transaction(), self._connection.cursor() as cursor:
            if answered:
                with cursor.copy(COPY) as copy:
                    copy.write(b"".join(answered))
            # Sorted, so that two processes that count for the same rollouts cannot deadlock.
            for rollout_id, tally in sorted(tallies.items()):
                added = [tally.get(name, 0) for name in ("answered", "dropped", "failed")]
                cursor.execute(TALLY, [rollout_id, *added])

    def close(self) -> None:
        """Closes the connection; the next write opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
