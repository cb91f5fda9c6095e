"""The view of `GET /metrics`, and the server of the worker's own metrics."""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Callable
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import resolve
from rest_framework.authentication import SessionAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from training.access import permissions
from training.models import RegisteredModel
from web.authentication import KeyAuthentication

logger = logging.getLogger(__name__)

PATH: Final = "/metrics"


def is_scraper(authorization: str) -> bool:
    """Returns whether a header ``Authorization`` carries METRICS_TOKEN."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() not in ("bearer", "token") or not settings.METRICS_TOKEN:
        return False
    return hmac.compare_digest(token.strip().encode(), settings.METRICS_TOKEN.encode())


class AnswerScrapers:
    """Middleware that answers `GET /metrics` with METRICS_TOKEN, without the database.

    It precedes the checks of the host name and the redirect to HTTPS: Prometheus asks each container by its
    address, which ALLOWED_HOSTS cannot name. A page of another site cannot send the token.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        scrape = request.method == "GET" and request.path_info == PATH
        if scrape and is_scraper(request.headers.get("Authorization", "")):
            request.resolver_match = resolve(PATH)  # names the route in vigia_requests_total
            return _exposition(request.headers.get("Accept", ""))
        return self.get_response(request)


class MayReadMetrics(BasePermission):
    """Allows users who may read the log of every model: metrics cover all models."""

    message = "/metrics needs METRICS_TOKEN, or the right 'read_log' for every model"

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not request.user.is_authenticated:
            return False
        allowed = permissions.allowed_models(request.user, "read_log").values("pk")
        return allowed.exists() and not RegisteredModel.objects.exclude(pk__in=allowed).exists()


class MetricsView(APIView):
    """Returns all metrics in OpenMetrics or Prometheus' text format, to keys and sessions."""

    authentication_classes = [KeyAuthentication, SessionAuthentication]
    permission_classes = [MayReadMetrics]
    renderer_classes = [JSONRenderer]  # for errors
    throttle_classes = []
    schema = None

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        return JSONRenderer(), "application/json"  # `get` negotiates Prometheus' formats itself

    def get(self, request: Request) -> HttpResponse:
        return _exposition(request.headers.get("Accept", ""))


def _exposition(accept: str) -> HttpResponse:
    from web.metrics import exposition

    body, kind = exposition.render_all(accept)
    return HttpResponse(body, content_type=kind, headers={"Cache-Control": "no-store"})


# -- the worker's own ----------------------------------------------------------------------------------


def worker_application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """The WSGI application of the worker's metrics; it requires METRICS_TOKEN."""
    if not is_scraper(environ.get("HTTP_AUTHORIZATION", "")):
        start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer"), ("Content-Length", "0")])
        return [b""]
    from web.metrics import exposition

    body, kind = exposition.render_worker(environ.get("HTTP_ACCEPT", ""))
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


class _Silent(WSGIRequestHandler):
    timeout = 10  # seconds without a byte from the client

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing: scrapes come every few seconds."""


def serve_worker(port: int) -> WSGIServer | None:
    """Serves the worker's metrics on their own port, for a worker on another machine than web.

    Returns
    -------
    The server, which runs in a thread; None without METRICS_TOKEN.
    """
    if not settings.METRICS_TOKEN:
        logger.error("WORKER_METRICS_PORT needs METRICS_TOKEN: set it, or the worker serves no metrics")
        return None
    from prometheus_client.exposition import ThreadingWSGIServer

    # A thread for each connection, so that a silent client delays no other.
    server = make_server("", port, worker_application, ThreadingWSGIServer, _Silent)
    threading.Thread(target=server.serve_forever, name="worker-metrics", daemon=True).start()
    return server
