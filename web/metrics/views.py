"""`GET /metrics`: who may read it, and in which format."""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.http import HttpResponse
from rest_framework.authentication import SessionAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from training.access import permissions
from training.models import RegisteredModel
from web.authentication import KeyAuthentication

logger = logging.getLogger(__name__)

SCRAPER: Final = "scraper"
"""What `request.auth` is for whoever sent METRICS_TOKEN."""


def is_scraper(authorization: str) -> bool:
    """Whether a header ``Authorization`` carries METRICS_TOKEN."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() not in ("bearer", "token") or not settings.METRICS_TOKEN:
        return False
    return hmac.compare_digest(given.strip().encode(), settings.METRICS_TOKEN.encode())


class ScraperAuthentication(KeyAuthentication):
    """METRICS_TOKEN in the place of a client key: it opens this route and no other, without the database."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        if is_scraper(request.headers.get("Authorization", "")):
            return AnonymousUser(), SCRAPER
        return super().authenticate(request)


class MayReadMetrics(BasePermission):
    """METRICS_TOKEN, or who may read the log of every model: the numbers tell of all of them."""

    message = "this needs METRICS_TOKEN, or the right 'read_log' for every model"

    def has_permission(self, request: Request, view: APIView) -> bool:
        if request.auth == SCRAPER:
            return True
        if not request.user.is_authenticated:
            return False
        allowed = permissions.allowed_models(request.user, "read_log").values("pk")
        return allowed.exists() and not RegisteredModel.objects.exclude(pk__in=allowed).exists()


class MetricsView(APIView):
    """All metrics, in OpenMetrics or Prometheus' text format."""

    authentication_classes = [ScraperAuthentication, SessionAuthentication]
    permission_classes = [MayReadMetrics]
    renderer_classes = [JSONRenderer]  # of refusals
    throttle_classes = []
    schema = None

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        return JSONRenderer(), "application/json"  # what Prometheus accepts is not DRF's to choose from

    def get(self, request: Request) -> HttpResponse:
        from web.metrics import exposition

        body, kind = exposition.everything(request.headers.get("Accept", ""))
        return HttpResponse(body, content_type=kind, headers={"Cache-Control": "no-store"})


# -- the worker's own ----------------------------------------------------------------------------------


def worker_application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """WSGI: what the worker's processes counted, for METRICS_TOKEN alone."""
    if not is_scraper(environ.get("HTTP_AUTHORIZATION", "")):
        start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer"), ("Content-Length", "0")])
        return [b""]
    from web.metrics import exposition

    body, kind = exposition.of_the_worker(environ.get("HTTP_ACCEPT", ""))
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    """Who connects and says nothing keeps no other from the numbers."""

    daemon_threads = True


class _Silent(WSGIRequestHandler):
    timeout = 10  # seconds that a connection may say nothing

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a scrape every few seconds is no news."""


def serve_worker(port: int) -> WSGIServer | None:
    """Shows the worker's metrics on a port of their own: for a worker on another machine than web.

    Returns
    -------
    The server, which runs in a thread; None without METRICS_TOKEN.
    """
    if not settings.METRICS_TOKEN:
        logger.error("WORKER_METRICS_PORT is set and METRICS_TOKEN is not: nothing is shown")
        return None
    server = make_server("", port, worker_application, _Server, _Silent)
    threading.Thread(target=server.serve_forever, name="worker-metrics", daemon=True).start()
    return server
