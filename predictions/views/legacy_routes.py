"""The routes of the tutorials this grew out of: their clients work with address and key changed alone.

Same path as every other answer: validated, logged, answered; only the shape of the answer is theirs.
"""

from __future__ import annotations

import uuid
from typing import Any, cast

from django.conf import settings
from django.urls import path
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from core.uuid7 import time_of
from predictions.views.base import Fenced
from training.parsers import JsonBody, RawJSONParser, check_length
from vigia_ml.errors import Malformed


def churn_answer(given: dict[str, Any]) -> dict[str, Any]:
    """One of our answers as the clients of ``/predict`` know it."""
    return {"churn_probability": given["probability"], "churn": given["prediction"]}


def house_answer(given: dict[str, Any]) -> dict[str, Any]:
    """One of our answers as the clients of ``/predecir`` know it; the timestamp, in seconds since 1970, is
    the one in the answer's id, so that a repeated answer is the same."""
    return {"precio": given["prediction"], "timestamp": time_of(uuid.UUID(given["id"])).timestamp()}


class TutorialView(Fenced):
    """One instance in, one flat object out."""

    model_name = ""
    parser_classes = [RawJSONParser]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method == "POST":
            self.model = self.find_model(self.model_name)
            self.require(request, "predict")

    def ask(self, request: Request) -> dict[str, Any]:
        """The one prediction."""
        check_length(request, settings.PREDICT_MAX_BYTES)
        body = cast("JsonBody", request.data)
        if not body.raw.lstrip(b" \t\r\n\xef\xbb\xbf").startswith(b"{") and not isinstance(body.value, dict):
            raise Malformed("send one JSON object", code="not_an_object")
        given: dict[str, Any] = self.predict(request, self.model, body, None).body["predictions"][0]
        return given


class ChurnTutorialView(TutorialView):
    """``POST /predict``: one customer in, the probability of churn out."""

    model_name = "churn"

    @extend_schema(
        operation_id="tutorial_churn",
        request={"application/json": {"type": "object"}},
        responses={200: {"type": "object"}},
        examples=[OpenApiExample("answer", {"churn_probability": 0.627, "churn": True}, response_only=True)],
    )
    def post(self, request: Request) -> Response:
        return Response(churn_answer(self.ask(request)))


class HousesTutorialView(TutorialView):
    """``POST /predecir``: one dwelling in, its price out."""

    model_name = "houses"

    @extend_schema(
        operation_id="tutorial_houses",
        request={"application/json": {"type": "object"}},
        responses={200: {"type": "object"}},
        examples=[
            OpenApiExample("answer", {"precio": 158827.2, "timestamp": 1700660949.07}, response_only=True)
        ],
    )
    def post(self, request: Request) -> Response:
        return Response(house_answer(self.ask(request)))


urlpatterns = [
    path("predict", ChurnTutorialView.as_view(), name="tutorial-churn"),
    path("predecir", HousesTutorialView.as_view(), name="tutorial-houses"),
]
