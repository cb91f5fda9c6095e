"""Drift reviews over HTTP: the latest, one of a window now, one that was made before."""

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
from vigia_ml.schema import Fault, InvalidRows


class ReportRenderer(BaseRenderer):
    """``?format=html``: the review as one page that needs nothing else."""

    media_type = "text/html"
    format = "html"
    charset = "utf-8"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None
    ) -> str | bytes:
        review = (renderer_context or {})["view"].shown
        if review is None:  # an error: it comes in the one shape, and says so
            (renderer_context or {})["response"]["Content-Type"] = "application/json"
            rendered: bytes = JSONRenderer().render(data)
            return rendered
        (renderer_context or {})["response"]._csp_config = report.POLICY
        return report.render(review)


class _Shown(ModelView):
    """A view that answers with one review, as JSON or as its page."""

    rights: ClassVar = {"GET": "read_log"}
    renderer_classes = [*ModelView.renderer_classes, ReportRenderer]
    shown: DriftReview | None = None

    def show(self, review: DriftReview) -> Response:
        self.shown = review
        return Response(ReviewSerializer(review).data)


_WINDOW = [
    OpenApiParameter("since", OpenApiTypes.DATETIME, description="Review the log from then on, now."),
    OpenApiParameter("until", OpenApiTypes.DATETIME, description="Before then; now, when it is left out."),
    OpenApiParameter("version", int, description="Whose answers; the active version's without it."),
]
_FORMAT = OpenApiParameter("format", str, enum=["json", "html"], description="html: one self-contained page.")
_ANSWER = {(200, "application/json"): ReviewSerializer, (200, "text/html"): OpenApiTypes.STR}


class DriftView(_Shown):
    """The latest drift review; with a window, that window reviewed now (in whole hours)."""

    @extend_schema(responses=_ANSWER, operation_id="review_drift", parameters=[*_WINDOW, _FORMAT])
    def get(self, request: Request, model: str) -> Response:
        since, until = datetime_param(request, "since"), datetime_param(request, "until")
        version = self._version(request)
        if since is None and until is None and version is None:
            found = reviews.latest(self.model)
            if found is None:
                said = f"{self.model.name} has not been reviewed yet: ask for a window with ?since="
                raise NotFound(said)
            return self.show(found)
        until = until or timezone.now()
        usual = dt.timedelta(hours=self.model.review_window_hours)
        since = since or max(until, EPOCH + usual) - usual
        return self.show(
            reviews.review(self.model, since, until, version=version, by=requesting_user(request))
        )

    def _version(self, request: Request) -> ModelVersion | None:
        given = request.query_params.get("version")
        if given is None:
            return None
        if not (given.isascii() and given.isdigit() and len(given) < 10):
            fault = Fault("version", "not_an_integer", "version must be a whole number")
            raise InvalidRows([fault], message=fault.message)
        return lookup.get_version(self.model, int(given))


class DriftReviewsView(ModelView):
    """Reviews so far, newest first."""

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


class DriftReviewView(_Shown):
    """One review and its findings."""

    @extend_schema(responses=_ANSWER, operation_id="get_drift_review", parameters=[_FORMAT])
    def get(self, request: Request, model: str, review: int) -> Response:
        return self.show(reviews.find(self.model, review))


class KeepReviewView(ModelView):
    """Keeps the rows of the log that a review is about, or lets retention have them.

    The answer has no findings: they hold levels, and who may train need not have the right to read the
    log."""

    rights: ClassVar = {"POST": "train"}
    max_bytes = settings.PREDICT_MAX_BYTES

    @extend_schema(
        request=KeepSerializer,
        responses={200: OpenApiResponse(ReviewSummarySerializer)},
        operation_id="keep_drift_review",
    )
    def post(self, request: Request, model: str, review: int) -> Response:
        found = reviews.find(self.model, review)
        given = KeepSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        reviews.keep(found, given.validated_data["kept"])
        return Response(ReviewSummarySerializer(found).data)

    def raw_example(self) -> str:
        """What the browsable API's form is filled with."""
        return '{"kept": true}'
