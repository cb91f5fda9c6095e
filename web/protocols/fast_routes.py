"""The routes of the standard protocols that the fast path answers."""

from __future__ import annotations

import re
from typing import Final

from web.protocols.fast import FastProtocol

_ROUTES: Final[tuple[tuple[re.Pattern[str], str, FastProtocol], ...]] = ()
"""(pattern, name in the metrics, protocol). A pattern has the groups ``model`` and ``number``; the second one
may be absent from an address, which then means the active version."""


def find(path: str) -> tuple[str, int | None, str, FastProtocol] | None:
    """Returns (model, number of the version or None, name in the metrics, protocol) of a path, or None."""
    for pattern, label, protocol in _ROUTES:
        if match := pattern.fullmatch(path):
            number = match["number"]
            return match["model"], None if number is None else int(number), label, protocol
    return None
