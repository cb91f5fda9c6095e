"""The routes of the standard protocols that the fast path answers."""

from __future__ import annotations

import re
from typing import Final

from web import route_labels
from web.protocols.fast import FastProtocol
from web.protocols.mlflow import FastMlflow
from web.protocols.v2 import FastV2

_MODEL: Final = r"(?P<model>[a-z][a-z0-9_]{0,49})"
_NUMBER: Final = r"(?P<number>[1-9]\d{0,8})"
_V2: Final = FastV2()
_MLFLOW: Final = FastMlflow()
_ROUTES: Final[tuple[tuple[re.Pattern[str], str, FastProtocol], ...]] = (
    (re.compile(rf"/v2/models/{_MODEL}(?P<number>)/infer"), route_labels.V2_ACTIVE, _V2),
    (re.compile(rf"/v2/models/{_MODEL}/versions/{_NUMBER}/infer"), route_labels.V2_VERSION, _V2),
    (re.compile(rf"/models/{_MODEL}(?P<number>)/invocations"), route_labels.MLFLOW_MODEL, _MLFLOW),
    (re.compile(rf"/endpoints/{_MODEL}(?P<number>)/invocations"), route_labels.MLFLOW_ENDPOINT, _MLFLOW),
)
"""(pattern, name in the metrics, protocol). A pattern has the groups ``model`` and ``number``; an empty
number means the active version."""


def find(path: str) -> tuple[str, int | None, str, FastProtocol] | None:
    """Returns (model, number of the version or None, name in the metrics, protocol) of a path, or None."""
    for pattern, label, protocol in _ROUTES:
        if match := pattern.fullmatch(path):
            return match["model"], int(match["number"]) if match["number"] else None, label, protocol
    return None
