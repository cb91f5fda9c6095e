"""Recommendations over HTTP: parse, call the service, present."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from dataclasses import asdict
from typing import ClassVar, Final, cast

from django.http import QueryDict
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from core.metrics import counters
from core.uuid7 import EPOCH
from predictions.inference.pipeline import Answer
from predictions.views.base import (
    GenerationCheckedView,
    caller_of,
    form_cells,
    respond,
    warm_cache,
)
from recommender.declaration import EXAMPLE
from recommender.interactions import feedback, parsing
from recommender.recommendations import request as questions
from recommender.recommendations import service
from recommender.recommendations.request import RecommendationRequest
from recommender.recommendations.response import titles
from recommender.serializers.recommendations import (
    FeedbackRecordedSerializer,
    FeedbackSerializer,
    LoggedRecommendationSerializer,
    QuestionSerializer,
    RecommendationQualitySerializer,
    RecommendationSerializer,
    WelcomeSerializer,
)
from recommender.telemetry import CLICKED, FEEDBACK
from recommender.views.base import FormView, MoviesView
from training.parsers import JsonBody, RawJSONParser, StrictJSONParser
from training.serving.engine_cache import served_to
from training.views.base import datetime_param, int_param, requesting_user
from vigia_ml.schema import InvalidRows

USUAL_WINDOW = dt.timedelta(days=7)
LONGEST_WINDOW = dt.timedelta(days=92)
LARGEST_NUMBER = 2**31 - 1

MOVIE_QUESTION: Final = {
    "type": "object",
    "properties": {"movie_id": {"type": "integer", "minimum": 1}},
    "required": ["movie_id"],
}
"""The documented body of `/recommend`; the route accepts the requests of `/api/v1/recommendations/` as
well."""


class AnsweringView(GenerationCheckedView, MoviesView):
    """A view that answers one recommendation request and logs before responding."""

    rights: ClassVar = {"POST": "predict", "GET": "predict"}

    def answer(self, request: Request, number: int | None = None) -> Answer:
        """Answers the request's body by version `number`; None: by the active version or its canary."""
        question = _parse(request)
        caller = caller_of(request)

        def attempt() -> Answer:
            served, _ = served_to(self.model, number, caller.client_id, self.generation)
            recommendation, answer = service.answer(served, question, caller, self.generation)
            if not answer.replayed:
                seconds = time.perf_counter() - request._request.since  # type: ignore[attr-defined]
                recommendation.count("", seconds)
            warm_cache(request, self.model, number, self.generation)
            return answer

        return self.fenced(request, self.model, caller, attempt)


def _parse(request: Request) -> RecommendationRequest:
    data = request.data
    if isinstance(data, QueryDict):
        return questions.read(form_cells(data, dict.fromkeys(questions.LISTS, ",")), text=True)
    return questions.read(cast("JsonBody", data).value)


class RecommendationsView(AnsweringView, FormView):
    """Recommends movies similar to one movie (by id or title), to several movies, to a text, or to a user's
    profile; each with its score and the terms behind it. Every answer is in the log under its id."""

    form_serializer = QuestionSerializer
    example: ClassVar = EXAMPLE
    parser_classes = [RawJSONParser, FormParser, MultiPartParser]

    @extend_schema(
        operation_id="recommend",
        request={"application/json": QuestionSerializer},
        responses=RecommendationSerializer,
        parameters=[
            OpenApiParameter(
                "version", int, description="Number of the version that answers, active or not."
            ),
        ],
        examples=[OpenApiExample("by title", EXAMPLE, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        return respond(self.answer(request, int_param(request, "version", LARGEST_NUMBER)))

    @extend_schema(operation_id="describe_recommendations", responses=WelcomeSerializer)
    def get(self, request: Request) -> Response:
        active = self.model.active_version
        number = active.number if active else None
        return Response({"model": self.model.name, "version": number, "example": EXAMPLE})


class RecommendTutorialView(AnsweringView):
    """``POST /recommend``: takes the id of a movie and returns five titles."""

    parser_classes = [RawJSONParser]

    @extend_schema(
        operation_id="tutorial_movies",
        request={"application/json": MOVIE_QUESTION},
        responses={200: {"type": "object"}},
        examples=[OpenApiExample("answer", {"recommendations": ["a title", "another"]}, response_only=True)],
    )
    def post(self, request: Request) -> Response:
        return Response(titles(self.answer(request).body))


class RecommendationView(MoviesView):
    """Shows one logged recommendation: the request, the movies, the feedback and the lineage."""

    rights: ClassVar = {"GET": "read_log"}

    @extend_schema(operation_id="get_recommendation", responses=LoggedRecommendationSerializer)
    def get(self, request: Request, recommendation: uuid.UUID) -> Response:
        return Response(LoggedRecommendationSerializer(feedback.find(self.model, recommendation)).data)


class FeedbackView(MoviesView):
    """Records feedback on a recommendation: a movie of it was clicked, watched, liked or disliked. Send one
    object or an array; repeating a request is harmless."""

    rights: ClassVar = {"POST": "give_outcomes"}
    parser_classes = [StrictJSONParser]

    @extend_schema(
        operation_id="give_feedback",
        request={"application/json": FeedbackSerializer(many=True)},
        responses=FeedbackRecordedSerializer,
    )
    def post(self, request: Request, recommendation: uuid.UUID) -> Response:
        row = feedback.find(self.model, recommendation)
        result = feedback.record(row, parsing.read_feedback(request.data), by=requesting_user(request))
        labels = (self.model.name, str(result.version))
        for kind, number in result.recorded.items():
            counters.count(FEEDBACK, *labels, kind, by=number)
        if result.first_positive:
            counters.count(CLICKED, *labels)
        recorded = sum(result.recorded.values())
        return Response({"id": recommendation, "recorded": recorded, "repeated": result.repeated})


class QualityView(MoviesView):
    """Shows click-through by version: the share of answers with movies of which a movie was clicked, watched
    or liked.

    The default window is the last seven days; a window has at most 92 days."""

    rights: ClassVar = {"GET": "read_log"}

    @extend_schema(
        operation_id="get_recommendation_quality",
        responses=RecommendationQualitySerializer,
        parameters=[
            OpenApiParameter(
                "since",
                OpenApiTypes.DATETIME,
                description="Begin of the window; default seven days before `until`.",
            ),
            OpenApiParameter("until", OpenApiTypes.DATETIME, description="End of the window; default now."),
        ],
    )
    def get(self, request: Request) -> Response:
        until = datetime_param(request, "until") or timezone.now()
        since = datetime_param(request, "since") or max(until, EPOCH + USUAL_WINDOW) - USUAL_WINDOW
        if not since < until or until - since > LONGEST_WINDOW:
            message = f"since must be before until by at most {LONGEST_WINDOW.days} days"
            raise InvalidRows.single("since", "out_of_bounds", message)
        versions = [asdict(each) for each in feedback.by_version(self.model, since, until)]
        body = {"model": self.model.name, "since": since, "until": until, "versions": versions}
        return Response(RecommendationQualitySerializer(body).data)
