"""``GET /api/v1/``: the addresses of the API."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.views import APIView

from core.version import VERSION

ROUTES: Final = {
    "models": "models",
    "recommendations": "recommendations",
    "movies": "movies",
    "interactions": "interactions",
    "events": "events",
    "subscriptions": "subscriptions",
    "documentation": "docs",
    "openapi": "openapi",
    "health": "ready",
}
"""Name of a link -> name of its route."""


class ApiRootSerializer(serializers.Serializer[Any]):
    version = serializers.CharField(help_text="Version of the platform.")
    links = serializers.DictField(child=serializers.URLField(), help_text="Addresses by name.")


class ApiRootView(APIView):
    """Lists the addresses of the API."""

    name = "API"

    @extend_schema(operation_id="get_api_root", responses=ApiRootSerializer)
    def get(self, request: Request) -> Response:
        links = {name: reverse(route, request=request) for name, route in ROUTES.items()}
        return Response({"version": VERSION, "links": links})
