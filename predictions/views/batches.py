"""Batches over HTTP: request, follow, cancel, download."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, ClassVar, Final

from django.conf import settings
from django.core.files.base import File
from django.db.models import QuerySet
from django.http import QueryDict, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from knox.models import AuthToken
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from core.errors import NoActiveVersion, TooLarge, UnsupportedBody
from predictions.batches import attachments, requests, sources, uploads
from predictions.batches.attachments import CSV, PARQUET
from predictions.batches.requests import Source
from predictions.models import Batch
from predictions.serializers.batches import (
    BatchSerializer,
    BatchSummarySerializer,
    LocationSerializer,
    UploadSerializer,
)
from training import providers, queueing
from training.access import permissions
from training.idempotency import RetryKey
from training.jobs import leases
from training.models import ModelVersion, RegisteredModel, StoredUpload, sharing_versions
from training.parsers import BODY_LIMIT, PushParser, StrictJSONParser, content_length
from training.registry import lookup
from training.views.base import (
    CSV_PARAMETERS,
    PREFER_PARAMETER,
    ModelView,
    before,
    csv_dialect,
    int_param,
    requesting_user,
)
from training.views.charged import ChargedView, Once
from training.views.idempotent import retry_key
from training.views.prefer_wait import JobResponse
from vigia_ml.errors import Malformed
from vigia_ml.schema import Fault, InvalidRows
from vigia_ml.schema.csv_dialect import Told
from vigia_ml.schema.faults import clip

LOCATION_BYTES: Final = 2**14
"""Bytes of a JSON body, which names a file."""
NDJSON: Final = "application/x-ndjson"
JSON, FORM = "application/json", "multipart/form-data"
VERSION_PARAMETER = OpenApiParameter(
    "version", int, description="Number of the version that scores the rows; default: the active one."
)
ON_INVALID_PARAMETER = OpenApiParameter(
    "on_invalid",
    str,
    enum=Batch.OnInvalid.values,
    description="`report` (default): invalid rows go to the error file; `stop`: the first ends the batch.",
)


class StreamParser(BaseParser):
    """Leaves the body unread: the view copies it into the store."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        return stream


def _stream_parser(media_type: str) -> type[StreamParser]:
    return type("StreamParser", (StreamParser,), {"media_type": media_type})


class BatchesView(ChargedView):
    """POST requests a batch for an uploaded file, or for a file in a declared location. GET lists batches,
    newest first: the client's own, or with the right `read_log` all of the model."""

    rights: ClassVar = {"POST": "predict"}
    without_form: ClassVar = ("POST",)
    content_encodings: ClassVar = ("gzip",)
    parser_classes = [*map(_stream_parser, sources.CONTENT_TYPES), StrictJSONParser, PushParser]
    charged_as = StoredUpload.Kind.UPLOAD
    version: ModelVersion
    on_invalid: str
    dialect: Told
    source: Source

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if request.method == "POST":
            # Before the session's CSRF check, which reads the body of a form.
            self.max_bytes = request.META[BODY_LIMIT] = _most_bytes(request)
            if content_length(request) > self.max_bytes:
                raise TooLarge(
                    f"the body has {content_length(request):,} bytes; accepted: at most {self.max_bytes:,}"
                )
        super().initial(request, *args, **kwargs)
        if request.method == "POST":  # before a large body arrives
            if _media_type(request) not in (*sources.CONTENT_TYPES, JSON, FORM):
                raise UnsupportedBody(
                    f"this Content-Type names no file of rows: send {CSV}, {PARQUET} or {NDJSON}; {FORM} "
                    f"with the part file; or {JSON} with location and path",
                    code="unsupported_media_type",
                )
            providers.require_rows(self.model, "batches")
            self.version, self.on_invalid = version_for(request, self.model), on_invalid(request)
            self.dialect = csv_dialect(request)

    @extend_schema(
        responses=BatchSummarySerializer(many=True),
        operation_id="list_batches",
        parameters=[OpenApiParameter("before", int, description="Lists only batches with a smaller id.")],
    )
    def get(self, request: Request, model: str) -> Response:
        rows = before(visible(request, self.model), request, "id")
        rows = rows.prefetch_related(*sharing_versions("version"))
        return Response(BatchSummarySerializer(rows, many=True, context={"request": request}).data)

    @extend_schema(
        request={
            CSV: OpenApiTypes.STR,
            PARQUET: OpenApiTypes.BINARY,
            NDJSON: OpenApiTypes.STR,
            FORM: UploadSerializer,
            JSON: LocationSerializer,
        },
        responses={202: BatchSerializer, 201: BatchSerializer},
        operation_id="request_batch",
        parameters=[VERSION_PARAMETER, ON_INVALID_PARAMETER, *CSV_PARAMETERS, PREFER_PARAMETER],
    )
    def post(self, request: Request, model: str) -> Response:
        by, token = requesting_user(request), request.auth
        batch = requests.request(
            self.version,
            self.source,
            by=by,
            token_key=token.token_key if isinstance(token, AuthToken) else "",
            on_invalid=self.on_invalid,
        )
        queueing.enqueue(batch)
        location = reverse("batch", args=[self.model.name, batch.pk], request=request)
        return JobResponse(request, batch, partial(shown, request), location=location)

    def stored_bytes(self, request: Request) -> int:
        return self.source.source_size if self.source.source_name else 0

    def retry_key(self, request: Request) -> RetryKey | None:
        """Returns the key and a digest of the unpacked bytes, or of the file's name in its location."""
        source = self.source
        named = json.dumps([source.source_sha256, source.location, source.path, source.format])
        return retry_key(request, ("batch", hashlib.sha256(named.encode()).hexdigest()))

    def _charged(self, once: Once, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Stages the file before the transaction of the request, because that takes long."""
        with self._staged(request) as self.source:
            return super()._charged(once, request, *args, **kwargs)

    @contextmanager
    def _staged(self, request: Request) -> Iterator[Source]:
        data: Any = request.data
        if isinstance(data, dict) and not isinstance(data, QueryDict):
            named = LocationSerializer(data=data)
            _refuse_unknown(data, named.fields)
            named.is_valid(raise_exception=True)
            yield sources.of_location(**{"format": None, **named.validated_data}, dialect=self.dialect)
            return
        is_gzip = request.headers.get("Content-Encoding", "").strip().lower() == "gzip"
        if isinstance(data, QueryDict):
            stream, packing = _part(data)
            if is_gzip:
                raise Malformed("pack the file, not the form: name it .gz", code="packed_form")
        elif hasattr(data, "read"):
            stream, packing = data, sources.Packing(sources.CONTENT_TYPES[_media_type(request)], is_gzip)
        else:
            raise Malformed('send {"location": …, "path": …}, or a file', code="not_an_object")
        with uploads.staged(stream, is_gzip=packing.is_gzip, limit=settings.BATCH_MAX_BYTES) as upload:
            yield sources.of_upload(upload, packing.format, self.dialect)


class _BatchView(ModelView):
    """Base of the views of one batch. Another client's batch is a 404 without the right `read_log`."""

    def batch(self, request: Request, number: int) -> Batch:
        return lookup.get_row(visible(request, self.model), number, self.model.name, "batch")


class BatchView(_BatchView):
    """Returns one batch with its progress and its first faults."""

    @extend_schema(responses=BatchSerializer, operation_id="get_batch")
    def get(self, request: Request, model: str, batch: int) -> Response:
        return Response(shown(request, self.batch(request, batch)))


class CancelBatchView(_BatchView):
    """Cancels a batch: at once while it is queued, else after the present chunks, whose rows stay logged.

    To cancel another client's batch needs the right `train`, as for other jobs."""

    reads_body = False

    @extend_schema(request=None, responses={202: BatchSerializer}, operation_id="cancel_batch")
    def post(self, request: Request, model: str, batch: int) -> Response:
        row, by = self.batch(request, batch), requesting_user(request)
        self.require(request, "predict" if row.requested_by_id == by.pk else "train")
        return Response(shown(request, leases.request_cancel(row, by=by)), status=202)


class _FileView(_BatchView):
    """Base of the views that send a file; an error is JSON, whatever the client accepts."""

    def perform_content_negotiation(self, request: Request, force: bool = False) -> tuple[BaseRenderer, str]:
        return JSONRenderer(), JSONRenderer.media_type


class BatchResultsView(_FileView):
    """Sends the results of an ended batch."""

    @extend_schema(
        responses={(200, CSV): OpenApiTypes.STR, (200, PARQUET): OpenApiTypes.BINARY},
        operation_id="get_batch_results",
        parameters=[OpenApiParameter("format", str, enum=["csv", "parquet"], description="Default: csv.")],
    )
    def get(self, request: Request, model: str, batch: int) -> StreamingHttpResponse:
        row, format = self.batch(request, batch), request.query_params.get("format", "csv")
        if format not in ("csv", "parquet"):
            raise InvalidRows.single(
                "format", "not_a_level", "format must be csv or parquet", allowed=("csv", "parquet")
            )
        return attachments.of_results(row, format)


class BatchErrorsView(_FileView):
    """Sends the faults of all invalid rows as CSV: row, column, code, message, value, line."""

    @extend_schema(responses={(200, CSV): OpenApiTypes.STR}, operation_id="get_batch_errors")
    def get(self, request: Request, model: str, batch: int) -> StreamingHttpResponse:
        return attachments.of_errors(self.batch(request, batch))


# -- parts ---------------------------------------------------------------------------------------------


def shown(request: Request, batch: Batch) -> dict[str, Any]:
    return dict(BatchSerializer(batch, context={"request": request}).data)


def visible(request: Request, model: RegisteredModel) -> QuerySet[Batch, Batch]:
    """Returns the batches that a client may see: its own, or all with the right `read_log`."""
    rows = model.batches.select_related("registered_model", "version", "requested_by")
    if permissions.may(request.user, "read_log", model):
        return rows
    return rows.filter(requested_by=requesting_user(request))


def version_for(request: Request, model: RegisteredModel) -> ModelVersion:
    """Returns the version that query parameter ``version`` names, else the active one."""
    number = int_param(request, "version", 2**31 - 1)
    version = model.active_version if number is None else lookup.get_version(model, number)
    if version is None:
        raise NoActiveVersion(model.name)
    return version


def on_invalid(request: Request) -> str:
    chosen, allowed = request.query_params.get("on_invalid", "report"), tuple(Batch.OnInvalid.values)
    if chosen not in allowed:
        message = "on_invalid must be report or stop"
        raise InvalidRows.single("on_invalid", "not_a_level", message, allowed=allowed)
    return chosen


def _most_bytes(request: Request) -> int:
    kind, most = _media_type(request), int(settings.BATCH_MAX_BYTES)
    return LOCATION_BYTES if kind == JSON else most + uploads.FORM_BYTES if kind == FORM else most


def _media_type(request: Request) -> str:
    return (request.META.get("CONTENT_TYPE") or "").partition(";")[0].strip().lower()


def _part(data: QueryDict) -> tuple[Any, sources.Packing]:
    """Returns the file of a form and its packing: by the field `format`, the Content-Type of the part, or the
    name of the file."""
    _refuse_unknown(data, ("file", "format", "csrfmiddlewaretoken"))
    file: Any = data.get("file")
    given = data.get("format")
    if not isinstance(file, File):
        message = "send the file as the part file, with a file name"
        raise InvalidRows.single("file", "missing_field" if file is None else "not_a_file", message)
    kind = sources.CONTENT_TYPES.get((getattr(file, "content_type", "") or "").lower())
    return file, sources.packing_of(str(file.name), str(given) if given else kind)


def _refuse_unknown(data: Mapping[str, Any], known: Any) -> None:
    message = f"unknown field; accepted: {', '.join(name for name in known if name != 'csrfmiddlewaretoken')}"
    faults = [Fault(clip(name), "unknown_field", message) for name in data if name not in known]
    if faults:
        raise InvalidRows(faults, message="the request is invalid")
