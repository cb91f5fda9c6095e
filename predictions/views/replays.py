"""Views that request, show and cancel replays."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from predictions.models import Replay
from predictions.replays import jobs as replays
from training import queueing
from training.access import permissions
from training.jobs import leases
from training.models import ModelVersion, sharing_versions
from training.registry import lookup
from training.views.base import PREFER_PARAMETER, ModelView, before, requesting_user
from training.views.prefer_wait import JobResponse


class ReplayRequestSerializer(serializers.Serializer[Any]):
    """The window of the model's log to replay, by time of the predictions."""

    since = serializers.DateTimeField(
        required=False, help_text="Beginning of the window; default: a week before `until`."
    )
    until = serializers.DateTimeField(required=False, help_text="End of the window, exclusive; default: now.")


class ReplaySummarySerializer(serializers.ModelSerializer[Replay]):
    """A replay without its result."""

    model = serializers.CharField(source="registered_model.name")
    version = serializers.IntegerField(source="version.number")

    class Meta:
        model = Replay
        fields: ClassVar = [
            "id", "status", "model", "version", "since", "until", "rows", "stage", "percent", "error",
            "attempts", "queued_at", "started_at", "finished_at",
        ]  # fmt: skip


class ReplaySerializer(ReplaySummarySerializer):
    """A replay; once finished, with its result.

    Only clients with the right `read_log` get the worst rows; for others the list is empty.
    """

    result = serializers.SerializerMethodField()

    class Meta(ReplaySummarySerializer.Meta):
        fields: ClassVar = [*ReplaySummarySerializer.Meta.fields, "result"]

    def get_result(self, replay: Replay) -> dict[str, Any] | None:
        result: dict[str, Any] | None = replay.result
        if result is None or self.context["with_inputs"]:
            return result
        return result | {"worst": []}


class _VersionReplayView(ModelView):
    """Base of the views below ``/versions/{n}/replays/``."""

    def version(self, number: int) -> ModelVersion:
        return lookup.get_version(self.model, number)

    def replay(self, number: int, replay_id: int) -> Replay:
        """Returns a replay of this version, or raises `NotFound`."""
        version = self.version(number)
        rows = version.replays.select_related("registered_model", "version")
        return lookup.get_row(rows, replay_id, version, "replay")

    def shown(self, replay: Replay) -> dict[str, Any]:
        with_inputs = permissions.may(self.request.user, "read_log", self.model)
        return dict(ReplaySerializer(replay, context={"with_inputs": with_inputs}).data)


class ReplaysView(_VersionReplayView):
    """POST requests a replay of a window of the log with this version; GET lists the version's replays."""

    rights: ClassVar = {"POST": "train"}

    @extend_schema(
        responses=ReplaySummarySerializer(many=True),
        operation_id="list_replays",
        parameters=[OpenApiParameter("before", int, description="Only replays with an id below this.")],
    )
    def get(self, request: Request, model: str, number: int) -> Response:
        rows = self.version(number).replays.defer("result").select_related("registered_model")
        rows = rows.prefetch_related(*sharing_versions("version"))
        return Response(ReplaySummarySerializer(before(rows, request, "id"), many=True).data)

    @extend_schema(
        request=ReplayRequestSerializer,
        responses={202: ReplaySerializer, 201: ReplaySerializer},
        operation_id="request_replay",
        parameters=[PREFER_PARAMETER],
    )
    def post(self, request: Request, model: str, number: int) -> Response:
        version = self.version(number)
        since, until = replays.window(request.data)
        replay = replays.request(version, since, until, by=requesting_user(request))
        queueing.enqueue(replay)
        location = reverse("replay", args=[self.model.name, number, replay.pk], request=request)
        return JobResponse(request, replay, self.shown, location=location)


class ReplayView(_VersionReplayView):
    """Returns one replay with its result."""

    @extend_schema(responses=ReplaySerializer, operation_id="get_replay")
    def get(self, request: Request, model: str, number: int, replay: int) -> Response:
        return Response(self.shown(self.replay(number, replay)))


class CancelReplayView(_VersionReplayView):
    """Stops a replay: a queued one at once, a running one after its current piece of the log."""

    rights: ClassVar = {"POST": "train"}

    @extend_schema(request=None, responses={202: ReplaySerializer}, operation_id="cancel_replay")
    def post(self, request: Request, model: str, number: int, replay: int) -> Response:
        stopped = leases.request_cancel(self.replay(number, replay), by=requesting_user(request))
        return Response(self.shown(stopped), status=202)
