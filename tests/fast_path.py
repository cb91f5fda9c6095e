"""Requests to the fast path without a server."""

from __future__ import annotations

import json
from typing import Any

from predictions.errors import LogUnavailable, NotStorable
from predictions.log import writer as prediction_log
from web.fast_path import FastPath, PendingReply, Reply, RequestHead, request_head


def head_of(path: str, **headers: str) -> RequestHead | None:
    """Returns the head of a POST; `path` may have a query string."""
    path, _, query = path.partition("?")
    return request_head({
        "method": "POST", "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "http_version": "1.1",
        "headers": [
            (name.lower().replace("_", "-").encode(), value.encode("latin-1"))
            for name, value in headers.items()
        ],
    })  # fmt: skip


def begin(
    fast_path: FastPath, path: str, body: Any, authorization: str, **headers: str
) -> PendingReply | None:
    """Returns the fast path's answer before its commit; None when it declines."""
    sent = {
        "host": "testserver",
        "content_type": "application/json",
        "authorization": authorization,
    } | headers
    head = head_of(path, **sent)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return None if head is None else fast_path.begin(head, data)


def ask(fast_path: FastPath, path: str, body: Any, authorization: str, **headers: str) -> Reply | None:
    """Returns the fast path's reply; None when it declines. The calling thread waits for the commit."""
    return ended(begin(fast_path, path, body, authorization, **headers))


def ended(pending: PendingReply | None) -> Reply | None:
    """Commits an answer and returns the reply; None when Django has to answer."""
    if pending is None:
        return None
    try:
        prediction_log.append(pending.entry)
    except (LogUnavailable, NotStorable) as error:
        return pending.refused(error)
    except (prediction_log.Stale, prediction_log.AlreadyAnswered):
        return None
    return pending.finish()
