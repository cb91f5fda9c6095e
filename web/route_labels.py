"""Routes by the names they have in the metrics: as OpenAPI writes them, parameters in braces."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from django.conf import settings
from django.http import HttpRequest

from core.metrics import counters

ACTIVE: Final = "/api/v1/models/{model}/predictions/"
VERSION: Final = "/api/v1/models/{model}/versions/{number}/predictions/"
RECOMMENDATIONS: Final = "/api/v1/recommendations/"
UNKNOWN: Final = "unknown"
"""Addresses that are no route of ours, and requests that could not be read."""
STATIC: Final = "static"
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
OTHER: Final = "other"


def name_of(request: HttpRequest) -> str:
    """The route that took a request; there are as many names as routes are declared."""
    match = request.resolver_match
    if match is not None:
        return _written(match.route)
    return STATIC if request.path.startswith(settings.STATIC_URL) else UNKNOWN


def count(route: str, method: str, status: int) -> None:
    """One answered request, for the metrics."""
    said = method if method in METHODS else OTHER
    counters.count("vigia_requests_total", route, said, str(status))


@cache
def _written(route: str) -> str:
    """Django's ``a/<int:b>/`` as ``/a/{b}/``; the admin's last route is a regular expression."""
    named = re.compile(r"\(\?P<(\w+)>.*\)\$?|<(?:\w+:)?(\w+)>")
    return "/" + named.sub(lambda found: f"{{{found[1] or found[2]}}}", route)
