"""Views that request, show and cancel exports of the log, and send their files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar, Final

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from predictions.exports import files, requests
from predictions.models import LogExport
from predictions.serializers.exports import (
    LogExportRequestSerializer,
    LogExportSerializer,
    LogExportSummarySerializer,
)
from training import queueing
from training.jobs import leases
from training.registry import lookup
from training.views.base import PREFER_PARAMETER, ModelView, before, requesting_user
from training.views.prefer_wait import JobResponse

PARQUET: Final = "application/vnd.apache.parquet"
ZIP: Final = "application/zip"


class LogExportsView(ModelView):
    """POST requests an export of a window of the log; GET lists the model's exports, newest first."""

    rights: ClassVar = {"GET": "read_log", "POST": "read_log"}

    @extend_schema(
        responses=LogExportSummarySerializer(many=True),
        operation_id="list_log_exports",
        parameters=[OpenApiParameter("before", int, description="Lists only exports with a smaller id.")],
    )
    def get(self, request: Request, model: str) -> Response:
        rows = self.model.logexports.defer("files").select_related("registered_model")
        return Response(LogExportSummarySerializer(before(rows, request, "id"), many=True).data)

    @extend_schema(
        request=LogExportRequestSerializer,
        responses={202: LogExportSerializer, 201: LogExportSerializer},
        operation_id="request_log_export",
        parameters=[PREFER_PARAMETER],
    )
    def post(self, request: Request, model: str) -> Response:
        export = requests.request(
            self.model, requests.requested_window(request.data), by=requesting_user(request)
        )
        queueing.enqueue(export)
        location = reverse("log-export", args=[self.model.name, export.pk], request=request)
        return JobResponse(request, export, partial(_shown, request), location=location)


def _shown(request: Request, export: LogExport) -> dict[str, Any]:
    return dict(LogExportSerializer(export, context={"request": request}).data)


class _LogExportView(ModelView):
    """Base of the views of one export."""

    rights: ClassVar = {"GET": "read_log", "POST": "read_log"}

    def export(self, number: int) -> LogExport:
        """Returns an export of this model, or raises `NotFound`."""
        rows = self.model.logexports.select_related("registered_model")
        return lookup.get_row(rows, number, self.model.name, "log export")


class LogExportView(_LogExportView):
    """Returns one export with its files."""

    @extend_schema(responses=LogExportSerializer, operation_id="get_log_export")
    def get(self, request: Request, model: str, export: int) -> Response:
        return Response(_shown(request, self.export(export)))


class CancelLogExportView(_LogExportView):
    """Cancels an export: at once while it is queued, else after the present piece of the log."""

    reads_body = False

    @extend_schema(request=None, responses={202: LogExportSerializer}, operation_id="cancel_log_export")
    def post(self, request: Request, model: str, export: int) -> Response:
        stopped = leases.request_cancel(self.export(export), by=requesting_user(request))
        return Response(_shown(request, stopped), status=202)


class _FileView(_LogExportView):
    """Base of the views that send a file; an error is JSON, whatever the client accepts."""

    def perform_content_negotiation(self, request: Request, force: bool = False) -> tuple[BaseRenderer, str]:
        return JSONRenderer(), JSONRenderer.media_type


class LogExportFileView(_FileView):
    """Sends one file of an export."""

    @extend_schema(responses={(200, PARQUET): OpenApiTypes.BINARY}, operation_id="get_log_export_file")
    def get(self, request: Request, model: str, export: int, path: str) -> StreamingHttpResponse:
        entry, stream = files.open_entry(self.export(export), path)
        kind = PARQUET if path.endswith(".parquet") else "application/octet-stream"
        response = _attachment(files.chunks(stream), kind, path.rpartition("/")[2])
        response["Content-Length"], response["ETag"] = str(entry["bytes"]), f'"{entry["sha256"]}"'
        return response


class LogExportArchiveView(_FileView):
    """Sends all files of an export as one zip, which holds the folder of the dataset."""

    @extend_schema(responses={(200, ZIP): OpenApiTypes.BINARY}, operation_id="get_log_export_archive")
    def get(self, request: Request, model: str, export: int) -> StreamingHttpResponse:
        row = self.export(export)
        files.require(row)
        return _attachment(files.zipped(row), ZIP, f"{self.model.name}-log-{row.pk}.zip")


def _attachment(pieces: Iterator[bytes], kind: str, name: str) -> StreamingHttpResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingHttpResponse(pieces, content_type=kind, headers=headers)
