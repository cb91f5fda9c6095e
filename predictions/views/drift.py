"""Views of drift reviews: the latest one, a new one of a window, and earlier ones."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from django.conf import settings
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from core.errors import NotFound
from core.uuid7 import EPOCH
from predictions.drift import report, reviews
from predictions.models import DriftReview
from predictions.serializers.drift import KeepSerializer, ReviewSerializer, ReviewSummarySerializer
from training.models import ModelVersion, sharing_versions
from training.registry import lookup
from training.views.base import ModelView, before, datetime_param, requesting_user
from vigia_ml.schema import InvalidRows


class ReportRenderer(BaseRenderer):
    """Renderer for ``?format=html``: the review as a self-contained page."""

    media_type = "text/html"
    format = "html"
    charset = "utf-8"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None
    ) -> str | bytes:
        review = (renderer_context or {})["view"].shown
        if review is None:  # an error keeps the API's JSON shape
            (renderer_context or {})["response"]["Content-Type"] = "application/json"
            rendered: bytes = JSONRenderer().render(data)
            return rendered
        (renderer_context or {})["response"]._csp_config = report.POLICY
        return report.render(review)


class _ReviewView(ModelView):
    """Base of the views that answer with one review, as JSON or as its page."""

    rights: ClassVar = {"GET": "read_log"}
    renderer_classes = [*ModelView.renderer_classes, ReportRenderer]
    shown: DriftReview | None = None

    def show(self, review: DriftReview) -> Response:
        self.shown = review
        return Response(ReviewSerializer(review).data)


_WINDOW = [
    OpenApiParameter(
        "since",
        OpenApiTypes.DATETIME,
        description="Beginning of the window to review; requests a new review.",
    ),
    OpenApiParameter(
        "until", OpenApiTypes.DATETIME, description="End of the window, exclusive; default: now."
    ),
    OpenApiParameter(
        "version", int, description="Number of the version to review; default: the active version."
    ),
]
_FORMAT = OpenApiParameter("format", str, enum=["json", "html"], description="html: a self-contained page.")
_ANSWER = {(200, "application/json"): ReviewSerializer, (200, "text/html"): OpenApiTypes.STR}


class DriftView(_ReviewView):
    """Returns the latest drift review; with a window or a version, makes a new one (in whole hours)."""

    @extend_schema(responses=_ANSWER, operation_id="review_drift", parameters=[*_WINDOW, _FORMAT])
    def get(self, request: Request, model: str) -> Response:
        since, until = datetime_param(request, "since"), datetime_param(request, "until")
        version = self._version(request)
        if since is None and until is None and version is None:
            latest = reviews.latest(self.model)
            if latest is None:
                raise NotFound(f"{self.model.name} has no drift review yet; request one with ?since=")
            return self.show(latest)
        until = until or timezone.now()
        usual = dt.timedelta(hours=self.model.review_window_hours)
        since = since or max(until, EPOCH + usual) - usual
        return self.show(
            reviews.review(self.model, since, until, version=version, by=requesting_user(request))
        )

    def _version(self, request: Request) -> ModelVersion | None:
        number = request.query_params.get("version")
        if number is None:
            return None
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise InvalidRows.single("version", "not_an_integer", "version must be a whole number")
        return lookup.get_version(self.model, int(number))


class DriftReviewsView(ModelView):
    """Lists the model's drift reviews, newest first."""

    rights: ClassVar = {"GET": "read_log"}

    @extend_schema(
        responses=ReviewSummarySerializer(many=True),
        operation_id="list_drift_reviews",
        parameters=[OpenApiParameter("before", int, description="Only reviews with an id below this.")],
    )
    def get(self, request: Request, model: str) -> Response:
        rows = DriftReview.objects.filter(registered_model=self.model)
        rows = rows.select_related("registered_model")
        rows = rows.prefetch_related("findings", *sharing_versions("version"))
        return Response(ReviewSummarySerializer(before(rows, request, "id"), many=True).data)


class DriftReviewView(_ReviewView):
    """Returns one review with its findings."""

    @extend_schema(responses=_ANSWER, operation_id="get_drift_review", parameters=[_FORMAT])
    def get(self, request: Request, model: str, review: int) -> Response:
        return self.show(reviews.find(self.model, review))


class KeepReviewView(ModelView):
    """Sets whether retention keeps the log's rows of a review's window.

    The answer has no findings: they hold levels of the log, and the right `train` does not include the right
    `read_log`."""

    rights: ClassVar = {"POST": "train"}
    max_bytes = settings.PREDICT_MAX_BYTES

    @extend_schema(
        request=KeepSerializer,
        responses={200: OpenApiResponse(ReviewSummarySerializer)},
        operation_id="keep_drift_review",
    )
    def post(self, request: Request, model: str, review: int) -> Response:
        row = reviews.find(self.model, review)
        serializer = KeepSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        reviews.keep(row, serializer.validated_data["kept"])
        return Response(ReviewSummarySerializer(row).data)

    def raw_example(self) -> str:
        """Returns the example in the browsable API's form."""
        return '{"kept": true}'
