"""The backend module that Django imports; the package's docstring describes it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, Final

import psycopg
from django.db.backends.postgresql import base
from psycopg import errors

from core.database import limits

NO_TIME_LEFT: Final = "PostgreSQL did not answer earlier in this request, and the time limit is used up"


class LimitedConnection(psycopg.Connection[Any]):
    """A connection that closes itself when the server does not answer in time."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Waits as psycopg does; with `timeout` None, `core.database.limits` sets the limit."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        limit = limits.seconds()
        if not limit:
            raise psycopg.OperationalError(NO_TIME_LEFT)
        started = time.monotonic()
        try:
            return super().wait(gen, interval, limit)
        except errors._WaitTimeout:
            limits.spend(time.monotonic() - started)
            # Its answer may still arrive, and would be read as the answer to the next statement.
            self.close()
            raise psycopg.OperationalError(f"PostgreSQL did not answer within {limit:.1f} s") from None


class DatabaseWrapper(base.DatabaseWrapper):
    # The module psycopg as Django uses it, with another `connect`.
    Database = SimpleNamespace(  # type: ignore[assignment]
        **{**vars(psycopg), "connect": LimitedConnection.connect}
    )

    def get_connection_params(self) -> dict[str, Any]:
        """Adds the session limits of a process that answers requests."""
        parameters: dict[str, Any] = super().get_connection_params()
        # Options from DATABASE_URL stand later, so they override these.
        parameters["options"] = " ".join([*limits.session_options(), parameters.get("options", "")]).strip()
        return parameters

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        limit = limits.seconds()
        usual = int(conn_params.get("connect_timeout") or limit)
        if limit < 1:
            raise psycopg.OperationalError(NO_TIME_LEFT)
        started = time.monotonic()
        try:
            return super().get_new_connection(conn_params | {"connect_timeout": min(usual, int(limit))})
        except psycopg.Error:
            limits.spend(time.monotonic() - started)
            raise

    def connect(self) -> None:
        """Connects as Django does, and reports a break during set-up as a break.

        A connection that breaks before its first statement makes psycopg and Django complain of their use
        (autocommit in the wrong state, PostgreSQL 0.0 too old) instead of the break.
        """
        try:
            super().connect()
        except Exception as error:
            broken, self.connection = self.connection, None
            if broken is None or not broken.closed:
                if broken is not None:
                    broken.close()
                raise
            raise psycopg.OperationalError(
                f"the connection broke before its first statement: {error}"
            ) from error

    def is_usable(self) -> bool:
        """Returns whether a kept connection answers within `limits.CHECK_SECONDS`."""
        with limits.within(limits.CHECK_SECONDS):
            return bool(super().is_usable())
