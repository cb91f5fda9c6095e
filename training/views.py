"""The registry over HTTP: parse, call one service, present."""

from __future__ import annotations

import re
import threading
import time
from typing import Any, ClassVar, TypeVar

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.views import APIView

from training import tasks
from training.errors import Malformed, NotFound
from training.models import ModelVersion, RegisteredModel, TrainingRun
from training.parsers import CsvBody, CSVParser, StrictJSONParser, check_length
from training.schema import Fault, InvalidRows
from training.schema.faults import clip
from training.serializers import (
    ActivateSerializer,
    ActivationSerializer,
    ReasonSerializer,
    RegisteredModelSerializer,
    TrainingRequestSerializer,
    TrainingRunSerializer,
    VersionSerializer,
    VersionSummarySerializer,
)
from training.services import access, datasets, registry, runs

PAGE = 100
# A waiting request holds one of the process's threads: most must stay free for predictions.
_WAITERS = threading.BoundedSemaphore(2)
Row = TypeVar("Row", ModelVersion, TrainingRun)
_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])")


class ModelView(APIView):
    """A route below ``/models/{model}/``: finds the model and asks for the right the method needs."""

    rights: ClassVar[dict[str, access.Right]] = {}
    max_bytes = settings.PREDICT_MAX_BYTES
    model: RegisteredModel

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.model = registry.get_model(kwargs["model"])
        right = self.rights.get("GET" if request.method == "HEAD" else request.method or "")
        if right is not None:
            access.require(request.user, right, self.model)
        else:
            access.require_any(request.user, self.model)
        if request.method == "POST":
            check_length(request, self.max_bytes)

    def get_view_name(self) -> str:
        """The heading of the browsable page: of which model it is."""
        name = getattr(self, "kwargs", {}).get("model")
        return f"{super().get_view_name()} of {name}" if name else super().get_view_name()

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        body = getattr(self.request, "_full_data", None)
        if isinstance(body, CsvBody):
            body.stream.close()
        return super().finalize_response(request, response, *args, **kwargs)


def who(request: Request) -> User:
    """The user behind the request; the permissions let nobody else through."""
    assert isinstance(request.user, User)
    return request.user


class ModelsView(APIView):
    """The registered models this key has any right for."""

    @extend_schema(responses=RegisteredModelSerializer(many=True), operation_id="list_models")
    def get(self, request: Request) -> Response:
        rows = access.visible_models(request.user)
        return Response(RegisteredModelSerializer(rows, many=True).data)


class ModelDetailView(ModelView):
    """One registered model: schema, active version, policy, an example to send."""

    @extend_schema(responses=RegisteredModelSerializer, operation_id="get_model")
    def get(self, request: Request, model: str) -> Response:
        return Response(RegisteredModelSerializer(self.model).data)


class VersionsView(ModelView):
    """All versions, newest first."""

    @extend_schema(
        responses=VersionSummarySerializer(many=True),
        operation_id="list_versions",
        parameters=[OpenApiParameter("before", int, description="Only versions numbered below this.")],
    )
    def get(self, request: Request, model: str) -> Response:
        rows = before(self.model.versions.order_by("-number"), request, "number")
        return Response(VersionSummarySerializer(rows, many=True).data)


class VersionDetailView(ModelView):
    """One version: metrics, gate, lineage, schema, engine."""

    @extend_schema(responses=VersionSerializer, operation_id="get_version")
    def get(self, request: Request, model: str, number: int) -> Response:
        return Response(VersionSerializer(registry.get_version(self.model, number)).data)


class ActiveView(ModelView):
    """What was live at a moment (now, without ``at``)."""

    @extend_schema(
        responses=ActivationSerializer,
        operation_id="get_active",
        parameters=[OpenApiParameter("at", OpenApiTypes.DATETIME, description="ISO 8601 time.")],
    )
    def get(self, request: Request, model: str) -> Response:
        moment = moment_of(request, "at") or timezone.now()
        found = registry.active_at(self.model, moment)
        if found is None:
            raise NotFound(f"nothing was active for {self.model.name} at {moment.isoformat()}")
        return Response(ActivationSerializer(found).data)


class ActivateView(ModelView):
    """Makes this version the active one."""

    rights: ClassVar = {"POST": "activate"}

    @extend_schema(request=ActivateSerializer, responses=ActivationSerializer, operation_id="activate")
    def post(self, request: Request, model: str, number: int) -> Response:
        version = registry.get_version(self.model, number)
        asked = ActivateSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        done = registry.activate(
            version,
            by=who(request),
            reason=asked.validated_data["reason"],
            override=asked.validated_data["override"],
        )
        return Response(ActivationSerializer(done).data)

    def get_serializer(self, *args: Any, **kwargs: Any) -> ActivateSerializer:
        return ActivateSerializer(*args, **kwargs)


class RollbackView(ModelView):
    """Goes back to the version that was active before."""

    rights: ClassVar = {"POST": "activate"}

    @extend_schema(request=ReasonSerializer, responses=ActivationSerializer, operation_id="rollback")
    def post(self, request: Request, model: str) -> Response:
        asked = ReasonSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        done = registry.rollback(self.model, by=who(request), reason=asked.validated_data["reason"])
        return Response(ActivationSerializer(done).data)

    def get_serializer(self, *args: Any, **kwargs: Any) -> ReasonSerializer:
        return ReasonSerializer(*args, **kwargs)


class TrainingRunsView(ModelView):
    """Asks for a retrain, by JSON or CSV; lists the runs so far."""

    rights: ClassVar = {"POST": "train"}
    parser_classes = [StrictJSONParser, CSVParser]
    max_bytes = settings.TRAINING_MAX_BYTES

    @extend_schema(
        responses=TrainingRunSerializer(many=True),
        operation_id="list_training_runs",
        parameters=[OpenApiParameter("before", int, description="Only runs with an id below this.")],
    )
    def get(self, request: Request, model: str) -> Response:
        rows = before(self.model.runs.select_related("registered_model", "upload", "dataset"), request, "id")
        return Response(TrainingRunSerializer(rows, many=True).data)

    @extend_schema(
        request={"application/json": TrainingRequestSerializer, "text/csv": OpenApiTypes.STR},
        responses={202: TrainingRunSerializer, 201: TrainingRunSerializer},
        operation_id="request_training_run",
        parameters=[
            OpenApiParameter("mode", str, enum=TrainingRun.Mode.values, description="For a CSV body."),
            OpenApiParameter("delimiter", str, enum=[",", ";", "tab"], description="For a CSV body."),
            OpenApiParameter("decimal", str, enum=[".", ","], description="For a CSV body."),
            OpenApiParameter("Prefer", str, OpenApiParameter.HEADER, description="wait=60 waits that long."),
        ],
    )
    def post(self, request: Request, model: str) -> Response:
        data = request.data
        mode = self._mode(request, data)
        if isinstance(data, CsvBody):
            delimiter, decimal = csv_dialect(request)
            upload = datasets.from_csv(
                self.model, data.stream, by=who(request), source="CSV", delimiter=delimiter, decimal=decimal
            )
        else:
            upload = datasets.from_instances(self.model, _instances(data), by=who(request))
        run = runs.request(self.model, upload, mode=mode, by=who(request))
        tasks.enqueue(run.pk)
        return self._answer(request, run)

    def _mode(self, request: Request, data: Any) -> str:
        given = request.query_params.get("mode")
        if given is None and isinstance(data, dict):
            given = data.get("mode")
        given = TrainingRun.Mode.APPEND if given is None else given
        if given not in TrainingRun.Mode.values:
            fault = Fault(
                "mode", "not_a_level", "mode must be append or replace", allowed=("append", "replace")
            )
            raise InvalidRows([fault], message=fault.message)
        return str(given)

    def _answer(self, request: Request, run: TrainingRun) -> Response:
        """202 at once; with ``Prefer: wait=N`` as late as that, and 201 when the run has finished."""
        headers = {"Location": reverse("training-run", args=[self.model.name, run.pk], request=request)}
        asked = _WAIT.search(request.headers.get("Prefer", ""))
        if asked and not run.is_finished and _WAITERS.acquire(blocking=False):
            try:
                run = self._wait(run, int(asked[1]), headers)
            finally:
                _WAITERS.release()
        return Response(
            TrainingRunSerializer(run).data, status=201 if run.is_finished else 202, headers=headers
        )

    def _wait(self, run: TrainingRun, asked: int, headers: dict[str, str]) -> TrainingRun:
        """The run when it has finished, or as it is after as many seconds as were asked for."""
        seconds = min(asked, settings.MAX_WAIT_SECONDS)
        headers["Preference-Applied"] = f"wait={seconds}"
        deadline, pause = time.monotonic() + seconds, 0.1
        while not run.is_finished and time.monotonic() < deadline:
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(pause * 1.5, 1.0)
            run = TrainingRun.objects.get(pk=run.pk)
        return run


class TrainingRunView(ModelView):
    """One training run and what became of it."""

    @extend_schema(responses=TrainingRunSerializer, operation_id="get_training_run")
    def get(self, request: Request, model: str, run: int) -> Response:
        found = self.model.runs.filter(pk=run).first() if run < 2**63 else None
        if found is None:
            raise NotFound(f"{self.model.name} has no training run {str(run)[:20]}")
        return Response(TrainingRunSerializer(found).data)


def _instances(data: Any) -> list[Any]:
    if not isinstance(data, dict):
        raise Malformed('send {"instances": [...], "mode": "append"} or a CSV', code="not_an_object")
    unknown = sorted(set(data) - {"instances", "mode"})
    faults = [Fault(clip(name), "unknown_field", "only instances and mode are read") for name in unknown]
    if "instances" not in data:
        faults.append(Fault("instances", "missing_field", "instances is missing"))
    elif not isinstance(data["instances"], list) or not data["instances"]:
        faults.append(Fault("instances", "not_an_array", "instances must be an array with at least one row"))
    if faults:
        raise InvalidRows(faults, message="the request is invalid")
    return list(data["instances"])


def csv_dialect(request: Request) -> tuple[str | None, str | None]:
    """(delimiter, decimal) as the query string overrides them."""
    delimiter, decimal = request.query_params.get("delimiter"), request.query_params.get("decimal")
    delimiter = "\t" if delimiter == "tab" else delimiter
    for name, given, allowed in (
        ("delimiter", delimiter, (",", ";", "\t")),
        ("decimal", decimal, (".", ",")),
    ):
        if given is not None and given not in allowed:
            fault = Fault(name, "not_a_level", f"{name} is not one this reads", allowed=allowed)
            raise InvalidRows([fault], message=fault.message)
    return delimiter, decimal


def moment_of(request: Request, name: str) -> Any:
    """A time from the query string (ISO 8601; UTC where it names no zone), or None."""
    given = request.query_params.get(name)
    if not given:
        return None
    try:
        # A "+" that was not percent-encoded arrives as a space.
        moment = parse_datetime(given.replace(" ", "+") if "T" in given else given)
        moment = moment or parse_datetime(f"{given}T00:00:00")
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        fault = Fault(
            name, "not_a_time", f"{name} must be an ISO 8601 time", value=given[:80], has_value=True
        )
        raise InvalidRows([fault], message=fault.message)
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment)


def before(rows: QuerySet[Row, Row], request: Request, field: str) -> QuerySet[Row, Row]:
    """One page of rows, those below ``?before=``."""
    given = request.query_params.get("before", "")
    if given.isascii() and given.isdigit() and len(given) < 19:
        rows = rows.filter(**{f"{field}__lt": int(given)})
    return rows.order_by(f"-{field}")[:PAGE]
