"""The routes of the standard protocols that the fast path answers."""

from __future__ import annotations

import re
from typing import Final

from web.protocols.fast import FastProtocol
from web.protocols.mlflow import Scoring

_MODEL: Final = r"(?P<model>[a-z][a-z0-9_]{0,49})"
_SCORING: Final = Scoring()
_ROUTES: Final[tuple[tuple[re.Pattern[str], str, FastProtocol], ...]] = (
    (re.compile(f"/models/{_MODEL}/invocations"), "/models/{model}/invocations", _SCORING),
    (re.compile(f"/endpoints/{_MODEL}/invocations"), "/endpoints/{model}/invocations", _SCORING),
)
"""(pattern, name in the metrics, protocol). A pattern has the group ``model`` and may have ``number``, which
may be absent from an address; without it the active version answers."""


def find(path: str) -> tuple[str, int | None, str, FastProtocol] | None:
    """Returns (model, number of the version or None, name in the metrics, protocol) of a path, or None."""
    for pattern, label, protocol in _ROUTES:
        if match := pattern.fullmatch(path):
            number = match.groupdict().get("number")
            return match["model"], None if number is None else int(number), label, protocol
    return None
