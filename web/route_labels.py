"""The names of routes in metrics: OpenAPI's form, with parameters in braces."""

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
V2_ACTIVE: Final = "/v2/models/{model}/infer"
V2_VERSION: Final = "/v2/models/{model}/versions/{number}/infer"
MLFLOW_MODEL: Final = "/models/{model}/invocations"
MLFLOW_ENDPOINT: Final = "/endpoints/{model}/invocations"
UNKNOWN: Final = "unknown"
"""The label of addresses without a route and of unreadable requests."""
STATIC: Final = "static"
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
OTHER: Final = "other"


def name_of(request: HttpRequest) -> str:
    """Returns the label of a request's route; the declared routes bound their number."""
    match = request.resolver_match
    if match is not None:
        return _label(match.route)
    return STATIC if request.path.startswith(settings.STATIC_URL) else UNKNOWN


def count(route: str, method: str, status: int) -> None:
    label = method if method in METHODS else OTHER
    counters.count("vigia_requests_total", route, label, str(status))


@cache
def _label(route: str) -> str:
    """Returns Django's ``a/<int:b>/`` as ``/a/{b}/``; the admin's last route is a regular expression."""
    parameter = re.compile(r"\(\?P<(\w+)>.*\)\$?|<(?:\w+:)?(\w+)>")
    return "/" + parameter.sub(lambda match: f"{{{match[1] or match[2]}}}", route)
