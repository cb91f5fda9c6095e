"""The routes of the two tutorials: their clients only have to change the address and add a key.

Requests are validated, logged and answered as on every other route; only the shape of the answer differs.
"""

from __future__ import annotations

import uuid
from typing import Any, ClassVar, cast

from django.conf import settings
from django.urls import path
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework.request import Request
from rest_framework.response import Response

from core.uuid7 import time_of
from predictions.views.base import GenerationCheckedView
from training.parsers import JsonBody, RawJSONParser, check_length
from vigia_ml.errors import Malformed


def churn_answer(prediction: dict[str, Any]) -> dict[str, Any]:
    """Returns a prediction in the shape of the tutorial's ``/predict``."""
    return {"churn_probability": prediction["probability"], "churn": prediction["prediction"]}


def house_answer(prediction: dict[str, Any]) -> dict[str, Any]:
    """Returns a prediction in the shape of the tutorial's ``/predecir``. Its timestamp, in seconds since
    1970, comes from the prediction's id, so a replayed answer has the same one."""
    created = time_of(uuid.UUID(prediction["id"]))
    return {"precio": prediction["prediction"], "timestamp": created.timestamp()}


def _documented(operation_id: str, example: dict[str, Any]) -> Any:
    return extend_schema_view(
        post=extend_schema(
            operation_id=operation_id,
            request={"application/json": {"type": "object"}},
            responses={200: {"type": "object"}},
            examples=[OpenApiExample("answer", example, response_only=True)],
        )
    )


class TutorialView(GenerationCheckedView):
    """A view that takes one instance and returns one flat object."""

    model_name: ClassVar[str]
    shape: ClassVar[Any]
    parser_classes = [RawJSONParser]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method == "POST":
            self.model = self.find_model(self.model_name)
            self.require(request, "predict")

    def post(self, request: Request) -> Response:
        check_length(request, settings.PREDICT_MAX_BYTES)
        body = cast("JsonBody", request.data)
        if not body.raw.lstrip(b" \t\r\n\xef\xbb\xbf").startswith(b"{") and not isinstance(body.value, dict):
            raise Malformed("send one JSON object", code="not_an_object")
        [prediction] = self.predict(request, self.model, body, None).body["predictions"]
        return Response(self.shape(prediction))


@_documented("tutorial_churn", {"churn_probability": 0.627, "churn": True})
class ChurnTutorialView(TutorialView):
    """``POST /predict``: takes one customer, returns the probability of churn."""

    model_name = "churn"
    shape = staticmethod(churn_answer)


@_documented("tutorial_houses", {"precio": 158827.2, "timestamp": 1700660949.07})
class HousesTutorialView(TutorialView):
    """``POST /predecir``: takes one dwelling, returns its price."""

    model_name = "houses"
    shape = staticmethod(house_answer)


urlpatterns = [
    path("predict", ChurnTutorialView.as_view(), name="tutorial-churn"),
    path("predecir", HousesTutorialView.as_view(), name="tutorial-houses"),
]
