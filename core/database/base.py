"""See the package."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg import errors

from core.database import limits


class LimitedConnection(psycopg.Connection[Any]):
    """A connection that is given up when the server does not answer in time."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """See psycopg; `timeout` None: by `core.database.limits`."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        limit = limits.seconds()
        if not limit:
            raise psycopg.OperationalError("PostgreSQL did not answer in time before, and is not asked again")
        started = time.monotonic()
        try:
            return super().wait(gen, interval, limit)
        except errors._WaitTimeout:
            limits.in_vain(time.monotonic() - started)
            # Its answer may still come, and would be taken for that to another question.
            self.close()
            raise psycopg.OperationalError(f"PostgreSQL did not answer within {limit:.1f} s") from None


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's, whose connections are `LimitedConnection`."""

    # All that Django asks of psycopg, with another `connect`.
    Database = SimpleNamespace(  # type: ignore[assignment]
        **{**vars(psycopg), "connect": LimitedConnection.connect}
    )

    def get_connection_params(self) -> dict[str, Any]:
        """With the session limits of a process that answers requests."""
        found: dict[str, Any] = super().get_connection_params()
        # What DATABASE_URL says itself comes later, and goes before.
        found["options"] = " ".join([*limits.session_options(), found.get("options", "")]).strip()
        return found

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """One that was made in time."""
        limit = limits.seconds()
        usual = int(conn_params.get("connect_timeout") or limit)
        if limit < 1:
            raise psycopg.OperationalError("PostgreSQL did not answer in time before, and is not asked again")
        started = time.monotonic()
        try:
            return super().get_new_connection(conn_params | {"connect_timeout": min(usual, int(limit))})
        except psycopg.Error:
            limits.in_vain(time.monotonic() - started)
            raise

    def connect(self) -> None:
        """As Django has it, and all or nothing.

        A connection that breaks before its first statement makes psycopg and Django complain of their use
        (autocommit in the wrong state, PostgreSQL 0.0 too old) instead of the break.
        """
        try:
            super().connect()
        except Exception as error:
            made, self.connection = self.connection, None
            if made is None or not made.closed:
                if made is not None:
                    made.close()
                raise
            raise psycopg.OperationalError(
                f"the connection broke before its first statement: {error}"
            ) from error

    def is_usable(self) -> bool:
        """Whether a connection that was kept is good, by an answer within `limits.CHECK_SECONDS`."""
        with limits.within(limits.CHECK_SECONDS):
            return bool(super().is_usable())
