"""Whether the broker answers, asked on a connection of its own."""

from __future__ import annotations

from typing import Final

from config.celery import app

ANSWER_SECONDS: Final = 2.0


def trouble() -> str:
    """Why the broker cannot be used; empty when it answers."""
    options = {"socket_connect_timeout": ANSWER_SECONDS, "socket_timeout": ANSWER_SECONDS}
    connection = app.connection_for_read(transport_options=app.conf.broker_transport_options | options)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
    except (
        Exception
    ) as error:  # a resolver, a library of the transport: whatever it raises, there is no broker
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return ""
