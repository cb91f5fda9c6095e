"""Views of the home page, the health probes and the OpenAPI document."""

from __future__ import annotations

import json
import threading
from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from drf_spectacular.views import SpectacularAPIView
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from core.version import VERSION
from training import providers
from training.models import RegisteredModel
from training.reports import side_by_side
from web import health

_GENERATION = threading.Lock()


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Shows the served models and the links to the rest.

    Anonymous visitors see only what the documentation shows: names and fields. Logged-in users also see
    versions and metrics.
    """
    served: list[dict[str, Any]] = []
    for row in RegisteredModel.objects.filter(archived_at=None):
        declared = side_by_side.declaration(row)
        active = row.active_version
        metric = side_by_side.primary_metric(row)
        served.append(
            {
                "row": row,
                "declared": declared,
                "page": providers.page(row.name),
                "active": active,
                "metric": metric,
                "value": active.metrics.get(metric) if active and metric else None,
            }
        )
    served.sort(key=lambda item: item["active"] is None)  # models with an active version first
    rows = [item for item in served if not item["page"]]
    first = next((item for item in rows if item["active"]), None)
    example = json.dumps(first["active"].dataset_schema.example, ensure_ascii=False) if first else ""
    context: dict[str, Any] = {
        "served": served,
        "version": VERSION,
        "curl_model": first["row"].name if first else "",
        "curl_body": example.replace("'", "'\\''"),
        "address": request.build_absolute_uri("/").rstrip("/"),
    }
    return render(request, "web/home.html", context)


@require_safe
def live(request: HttpRequest) -> JsonResponse:
    """Answers 200 while the process runs."""
    return JsonResponse({"status": "alive"})


@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """Answers 200 if the service can predict: the database answers and an active version loads.

    ``degraded`` lists all problems. The answer takes little more than `health.DEADLINE_SECONDS`, even if a
    probe hangs.
    """
    report = health.report()
    body: dict[str, Any] = {
        "status": "ready" if report.is_ready else "unavailable",
        "database": "away" if "database" in report.problems else "ok",
        "active_models": report.usable,
        "version": VERSION,
        "degraded": [{"check": check, "message": message} for check, message in report.problems.items()],
    }
    if report.is_ready:
        return JsonResponse(body)
    return JsonResponse(body, status=503, headers={"Retry-After": "2"})


@require_safe
@csrf_exempt  # it changes nothing; with the check a POST would get a CSRF error instead of 405
def ping(request: HttpRequest) -> HttpResponse:
    """Answers PONG, as the original tutorials do."""
    return HttpResponse("PONG", content_type="text/plain; charset=utf-8")


class SchemaView(SpectacularAPIView):
    """The OpenAPI document, generated once per process.

    The generator is not thread-safe: it patches the views' classes while it reads them.
    """

    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        renderer = request.accepted_renderer
        with _GENERATION:
            document = _rendered(type(renderer))  # type: ignore[arg-type]
        kind = (
            f"{renderer.media_type}; charset={renderer.charset}" if renderer.charset else renderer.media_type
        )
        headers = {"Content-Disposition": f'inline; filename="vigia.{renderer.format}"'}
        return HttpResponse(document, content_type=kind, headers=headers)


@cache
def _rendered(renderer: type[BaseRenderer]) -> bytes:
    from drf_spectacular.generators import SchemaGenerator

    document = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    text = renderer().render(document, renderer_context={})
    return text.encode() if isinstance(text, str) else bytes(text)
