"""The catalogue and the interactions over HTTP: parse, call the service, present."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

from django.http import QueryDict
from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from predictions.views.base import form_cells
from recommender import movie_schema
from recommender.catalogue import service as catalogue
from recommender.interactions import recording
from recommender.serializers.catalogue import (
    GivenInteractionSerializer,
    GivenMovieSerializer,
    InteractionPageSerializer,
    InteractionSerializer,
    InteractionsRecordedSerializer,
    MoviePageSerializer,
    MovieSerializer,
    ReplacedMovieSerializer,
)
from recommender.views.base import FormView, MoviesView
from training.parsers import StrictJSONParser
from training.views.base import bad_parameter, int_param, requesting_user

WITHDRAWN = {"false": False, "true": True, "any": None}
LARGEST = 2**63 - 1
PAGES = [
    OpenApiParameter("limit", int, description=f"Rows per page, at most {catalogue.LARGEST_PAGE}."),
    OpenApiParameter("cursor", str, description="Cursor from `next` of the previous page."),
]
MOVIE_FILTERS = [
    OpenApiParameter("id", int, many=True, description="Id of a movie; the parameter may repeat."),
    OpenApiParameter("title", str, description="Beginning of the title, ignoring case and accents."),
    OpenApiParameter("genre", str, description="Genre, ignoring case."),
    OpenApiParameter("year", int),
    OpenApiParameter("language", str, description="Language code such as en."),
    OpenApiParameter(
        "withdrawn",
        str,
        enum=list(WITHDRAWN),
        description="true: withdrawn movies; any: all movies; default false: the others.",
    ),
    *PAGES,
]
INTERACTION_FILTERS = [
    OpenApiParameter("user", str, description="The client's reference to a user."),
    OpenApiParameter("movie_id", int, description="Id of a movie."),
    *PAGES,
]
INTERACTION_EXAMPLE = {
    "user": "reader-7", "movie_id": 1, "kind": "liked", "at": "2026-11-01T20:15:00Z",
}  # fmt: skip


class CatalogueView(FormView):
    """Lists the movies of the catalogue by id, by default without withdrawn movies (GET); adds a movie
    (POST)."""

    rights: ClassVar = {"POST": "train"}
    form_serializer = GivenMovieSerializer
    example: ClassVar = movie_schema.EXAMPLE
    parser_classes = [StrictJSONParser, FormParser, MultiPartParser]

    @extend_schema(operation_id="list_movies", parameters=MOVIE_FILTERS, responses=MoviePageSerializer)
    def get(self, request: Request) -> HttpResponseBase:
        parameters = request.query_params
        withdrawn = parameters.get("withdrawn") or "false"
        if withdrawn not in WITHDRAWN:
            raise bad_parameter("withdrawn", f"withdrawn must be one of {', '.join(WITHDRAWN)}", withdrawn)
        rows, cursor = catalogue.page(
            ids=_ids(request),
            title=parameters.get("title") or None,
            genre=parameters.get("genre") or None,
            year=int_param(request, "year", movie_schema.LAST_YEAR),
            language=parameters.get("language") or None,
            withdrawn=WITHDRAWN[withdrawn],
            after=int_param(request, "cursor", LARGEST),
            limit=_limit(request),
        )
        show = MovieSerializer().to_representation
        return self.page(request, "movies", rows, show, reverse("movies"), cursor)

    @extend_schema(
        operation_id="add_movie",
        request={"application/json": GivenMovieSerializer},
        responses={201: MovieSerializer},
        examples=[OpenApiExample("a movie", movie_schema.EXAMPLE, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        if isinstance(request.data, QueryDict):
            cells = form_cells(request.data, dict.fromkeys(movie_schema.TERM_MARKS, "\n"))
            entry = movie_schema.read_cells(cells)
        else:
            entry = movie_schema.read(request.data)
        row = catalogue.add(entry, by=requesting_user(request))
        address = reverse("movie", args=[row.pk], request=request)
        return Response(MovieSerializer(row).data, status=201, headers={"Location": address})


class MovieView(MoviesView):
    """Shows one movie, withdrawn or not (GET). PUT sets all fields, adds a missing movie and readmits a
    withdrawn movie; PATCH sets some fields; DELETE withdraws the movie: it is no longer recommended, and its
    row stays, because the log refers to it."""

    rights: ClassVar = {"PUT": "train", "PATCH": "train", "DELETE": "train"}
    parser_classes = [StrictJSONParser]

    @extend_schema(operation_id="get_movie", responses=MovieSerializer)
    def get(self, request: Request, movie_id: int) -> Response:
        return Response(MovieSerializer(catalogue.get(movie_id)).data)

    @extend_schema(
        operation_id="put_movie",
        request={"application/json": ReplacedMovieSerializer},
        responses={200: MovieSerializer, 201: MovieSerializer},
    )
    def put(self, request: Request, movie_id: int) -> Response:
        entry = movie_schema.read(request.data, movie_id=movie_id)
        row, is_new = catalogue.put(entry, by=requesting_user(request))
        return Response(MovieSerializer(row).data, status=201 if is_new else 200)

    @extend_schema(
        operation_id="change_movie",
        request={"application/json": ReplacedMovieSerializer},
        responses=MovieSerializer,
    )
    def patch(self, request: Request, movie_id: int) -> Response:
        catalogue.get(movie_id)
        changes = movie_schema.read_changes(request.data, movie_id=movie_id)
        row = catalogue.change(movie_id, changes, by=requesting_user(request))
        return Response(MovieSerializer(row).data)

    @extend_schema(operation_id="withdraw_movie", request=None, responses={204: None})
    def delete(self, request: Request, movie_id: int) -> Response:
        row = catalogue.get(movie_id)
        catalogue.withdraw([row.pk], by=requesting_user(request))
        return Response(status=204)

    def get_serializer(self, *args: Any, **kwargs: Any) -> GivenMovieSerializer:
        return GivenMovieSerializer(*args, **kwargs)


class InteractionsView(FormView):
    """Records interactions of users with movies, one object or an array; repeating a request is harmless
    (POST). Lists the recorded interactions, feedback on recommendations included, newest first (GET)."""

    rights: ClassVar = {"POST": "give_outcomes", "GET": "read_log"}
    parser_classes = [StrictJSONParser]
    form_serializer = GivenInteractionSerializer
    example: ClassVar = [INTERACTION_EXAMPLE]

    @extend_schema(
        operation_id="list_interactions", parameters=INTERACTION_FILTERS, responses=InteractionPageSerializer
    )
    def get(self, request: Request) -> HttpResponseBase:
        rows, cursor = recording.page(
            user=request.query_params.get("user") or None,
            movie_id=int_param(request, "movie_id", movie_schema.LARGEST_ID),
            before=int_param(request, "cursor", LARGEST),
            limit=_limit(request),
        )
        show = InteractionSerializer().to_representation
        return self.page(request, "interactions", rows, show, reverse("interactions"), cursor)

    @extend_schema(
        operation_id="give_interactions",
        request={"application/json": GivenInteractionSerializer(many=True)},
        responses=InteractionsRecordedSerializer,
        examples=[OpenApiExample("one", INTERACTION_EXAMPLE, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        counts = recording.record(request.data, by=requesting_user(request))
        return Response({"model": self.model.name, **asdict(counts)})


def _limit(request: Request) -> int:
    return min(int_param(request, "limit", 10**6) or catalogue.PAGE, catalogue.LARGEST_PAGE)


def _ids(request: Request) -> tuple[int, ...]:
    ids = request.query_params.getlist("id")[: catalogue.LARGEST_PAGE]
    for each in ids:
        if not (each.isascii() and each.isdigit() and len(each) < 20):
            raise bad_parameter("id", "id must be the number of a movie", each)
    return tuple(int(each) for each in ids if int(each) <= movie_schema.LARGEST_ID)
