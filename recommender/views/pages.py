"""The movie recommender's page, ``/movies/``, and the suggestions of titles that it shows during typing. The
page uses the API as any client does."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from recommender.catalogue import browse_options
from recommender.catalogue import service as catalogue
from recommender.declaration import NAME
from recommender.movie_schema import LONGEST_TITLE
from recommender.serializers.catalogue import SuggestionsSerializer
from recommender.views.base import MoviesView
from training.access import permissions
from training.models import RegisteredModel


@require_safe
@login_required
def movies(request: HttpRequest) -> HttpResponse:
    """Renders the page; without the right to predict, a page that names the missing right."""
    model = RegisteredModel.objects.filter(name=NAME).first()
    context: dict[str, Any] = {}
    if model is not None and not permissions.may(request.user, "predict", model):
        return render(request, "recommender/not_allowed.html", status=403)
    if model is not None:
        version = model.active_version
        context = {
            "version": version,
            "may_report": permissions.may(request.user, "give_outcomes", model),
            "may_read": permissions.may(request.user, "read_log", model),
            "may_train": permissions.may(request.user, "train", model),
            "choices": browse_options.choices() if version else None,
        }
    return render(request, "recommender/movies.html", context)


class SuggestionsView(MoviesView):
    """Suggests movies for a title during typing: titles that begin with the text, then titles with its
    words."""

    @extend_schema(
        operation_id="suggest_movies",
        parameters=[OpenApiParameter("title", str, description="Typed text; case and accents are ignored.")],
        responses=SuggestionsSerializer,
    )
    def get(self, request: Request) -> Response:
        rows = catalogue.suggestions(request.query_params.get("title", "")[:LONGEST_TITLE])
        return Response(SuggestionsSerializer({"movies": rows}).data)
