"""The fast path, asked without a server."""

from __future__ import annotations

import json
from typing import Any

from predictions.errors import LogUnavailable, NotStorable
from predictions.log import writer as prediction_log
from web.fast_path import FastPath, Reply, RequestHead, request_head


def head_of(path: str, **headers: str) -> RequestHead | None:
    """The head of a POST to a path, perhaps with a query string."""
    path, _, query = path.partition("?")
    return request_head({
        "method": "POST", "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "http_version": "1.1",
        "headers": [
            (name.lower().replace("_", "-").encode(), value.encode("latin-1"))
            for name, value in headers.items()
        ],
    })  # fmt: skip


def ask(fast_path: FastPath, path: str, body: Any, authorization: str, **headers: str) -> Reply | None:
    """The fast path's reply; None when it declines. The calling thread waits for the commit."""
    sent = {
        "host": "testserver",
        "content_type": "application/json",
        "authorization": authorization,
    } | headers
    head = head_of(path, **sent)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    pending = None if head is None else fast_path.begin(head, data)
    if pending is None:
        return None
    try:
        prediction_log.append(pending.entry)
    except (LogUnavailable, NotStorable) as error:
        return pending.refused(error)
    except (prediction_log.Stale, prediction_log.AlreadyAnswered):
        return None
    return pending.finish()
