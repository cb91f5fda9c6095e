"""The page on which a person goes from movie to movie: ``/movies/``. It asks the API, as any client does; one
route of that is for its sake, the titles it suggests while somebody types."""

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
    """The page for those who may ask; for others, what they lack."""
    model = RegisteredModel.objects.filter(name=NAME).first()
    context: dict[str, Any] = {}
    if model is not None and not permissions.may(request.user, "predict", model):
        return render(request, "recommender/not_allowed.html", status=403)
    if model is not None:
        version = model.active_version
        context = {
            "version": version,
            "may_tell": permissions.may(request.user, "give_outcomes", model),
            "may_read": permissions.may(request.user, "read_log", model),
            "may_train": permissions.may(request.user, "train", model),
            "choices": browse_options.choices() if version else None,
        }
    return render(request, "recommender/movies.html", context)


class SuggestionsView(MoviesView):
    """Movies for a title that is still being typed: titles that begin so, then titles with these words."""

    @extend_schema(
        operation_id="suggest_movies",
        parameters=[OpenApiParameter("title", str, description="Case and accents do not count.")],
        responses=SuggestionsSerializer,
    )
    def get(self, request: Request) -> Response:
        found = catalogue.suggestions(request.query_params.get("title", "")[:LONGEST_TITLE])
        return Response(SuggestionsSerializer({"movies": found}).data)
