"""Replays over HTTP: asked for, followed, stopped."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from core.errors import NotFound
from predictions.models import Replay
from predictions.replays import jobs as replays
from training import queueing
from training.access import permissions
from training.jobs import leases
from training.models import ModelVersion, sharing_versions
from training.registry import lookup
from training.views.base import ModelView, before, requesting_user
from training.views.prefer_wait import JobResponse


class ReplayRequestSerializer(serializers.Serializer[Any]):
    """Which part of the model's log is scored, by time of the predictions."""

    since = serializers.DateTimeField(required=False, help_text="From then on; a week before `until`.")
    until = serializers.DateTimeField(required=False, help_text="Before then; now.")


class ReplaySummarySerializer(serializers.ModelSerializer[Replay]):
    """A replay, without what it found out."""

    model = serializers.CharField(source="registered_model.name")
    version = serializers.IntegerField(source="version.number")

    class Meta:
        model = Replay
        fields: ClassVar = [
            "id", "status", "model", "version", "since", "until", "rows", "stage", "percent", "error",
            "attempts", "queued_at", "started_at", "finished_at",
        ]  # fmt: skip


class ReplaySerializer(ReplaySummarySerializer):
    """A replay; once finished with what would have been answered instead.

    The worst rows are for those alone who may read the model's log; to others there are none.
    """

    result = serializers.SerializerMethodField()

    class Meta(ReplaySummarySerializer.Meta):
        fields: ClassVar = [*ReplaySummarySerializer.Meta.fields, "result"]

    def get_result(self, replay: Replay) -> dict[str, Any] | None:
        result: dict[str, Any] | None = replay.result
        if result is None or self.context["with_inputs"]:
            return result
        return result | {"worst": []}


class _OfVersion(ModelView):
    """A route below ``/versions/{n}/replays/``."""

    def version(self, number: int) -> ModelVersion:
        return lookup.get_version(self.model, number)

    def replay(self, number: int, replay_id: int) -> Replay:
        """A replay of this version, or `NotFound`."""
        version = self.version(number)
        rows = version.replays.select_related("registered_model", "version")
        found = rows.filter(pk=replay_id).first() if replay_id < 2**63 else None
        if found is None:
            raise NotFound(f"{version} has no replay {str(replay_id)[:20]}")
        return found

    def shown(self, replay: Replay) -> dict[str, Any]:
        with_inputs = permissions.may(self.request.user, "read_log", self.model)
        return dict(ReplaySerializer(replay, context={"with_inputs": with_inputs}).data)


class ReplaysView(_OfVersion):
    """Asks for a replay of a part of the log with this version; lists those so far."""

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
        parameters=[
            OpenApiParameter("Prefer", str, OpenApiParameter.HEADER, description="wait=60 waits that long.")
        ],
    )
    def post(self, request: Request, model: str, number: int) -> Response:
        version = self.version(number)
        since, until = replays.window(request.data)
        asked = replays.request(version, since, until, by=requesting_user(request))
        queueing.enqueue(asked)
        location = reverse("replay", args=[self.model.name, number, asked.pk], request=request)
        return JobResponse(request, asked, self.shown, location=location)


class ReplayView(_OfVersion):
    """One replay and what it found out."""

    @extend_schema(responses=ReplaySerializer, operation_id="get_replay")
    def get(self, request: Request, model: str, number: int, replay: int) -> Response:
        return Response(self.shown(self.replay(number, replay)))


class CancelReplayView(_OfVersion):
    """Stops a replay: at once while queued, else after the piece of the log it is at."""

    rights: ClassVar = {"POST": "train"}

    @extend_schema(request=None, responses={202: ReplaySerializer}, operation_id="cancel_replay")
    def post(self, request: Request, model: str, number: int, replay: int) -> Response:
        found = leases.request_cancel(self.replay(number, replay), by=requesting_user(request))
        return Response(self.shown(found), status=202)
