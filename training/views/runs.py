"""Training runs over HTTP: request, follow, cancel."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, ClassVar

from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from training import providers, queueing
from training.access import permissions
from training.jobs import leases
from training.models import RegisteredModel, StoredUpload, TrainingRun
from training.parsers import CsvBody, CSVParser, StrictJSONParser, body_size
from training.providers import ModelProvider, UnsupportedForModel
from training.registry import lookup
from training.runs import requests as run_requests
from training.runs import row_sources, uploads
from training.serializers import REPEAT, TrainingRequestSerializer, TrainingRunSerializer
from training.views.base import (
    CSV_PARAMETERS,
    PREFER_PARAMETER,
    ModelView,
    before,
    check_rows_request,
    csv_dialect,
    requesting_user,
)
from training.views.charged import ChargedView
from training.views.prefer_wait import JobResponse
from vigia_ml.errors import Malformed
from vigia_ml.schema import InvalidRows
from vigia_ml.schema.faults import clip


class TrainingRunsView(ChargedView):
    """Requests a training run by JSON or CSV (POST); lists the model's runs, newest first (GET)."""

    rights: ClassVar = {"POST": "train"}
    charged_as = StoredUpload.Kind.UPLOAD
    parser_classes = [StrictJSONParser, CSVParser]
    max_bytes = settings.TRAINING_MAX_BYTES

    @extend_schema(
        responses=TrainingRunSerializer(many=True),
        operation_id="list_training_runs",
        parameters=[OpenApiParameter("before", int, description="Lists only runs with a smaller id.")],
    )
    def get(self, request: Request, model: str) -> Response:
        rows = before(self.model.runs.select_related("registered_model", "upload", "dataset"), request, "id")
        return Response(TrainingRunSerializer(rows, many=True, context={"request": request}).data)

    @extend_schema(
        request={"application/json": TrainingRequestSerializer, "text/csv": OpenApiTypes.STR},
        responses={202: TrainingRunSerializer, 201: TrainingRunSerializer},
        operation_id="request_training_run",
        parameters=[
            OpenApiParameter(
                "mode", str, enum=TrainingRun.Mode.values, description="Mode of a CSV body (default: append)."
            ),
            OpenApiParameter("repeat", bool, description=f"CSV body: {REPEAT}"),
            *CSV_PARAMETERS,
            PREFER_PARAMETER,
        ],
    )
    def post(self, request: Request, model: str) -> Response:
        data, by = request.data, requesting_user(request)
        provider = providers.find(self.model.name)
        if provider is not None:
            _check_source(data, provider)
            return self._enqueued(request, run_requests.request_again(self.model, by=by))
        run_requests.require_declared(self.model)
        mode, repeat = self._mode(request, data), _repeat(request, data)
        source = search = None
        if isinstance(data, CsvBody):
            dialect = csv_dialect(request)
            upload = uploads.from_csv(self.model, data.stream, by=by, source="CSV", dialect=dialect)
        else:
            body = _checked_body(data)
            if "search" in body:
                search = _search(body["search"])
                run_requests.require_space(self.model)  # before rows are stored
            if "from" in body:
                fields = {name: body[name] for name in body if name not in ("mode", "search", "repeat")}
                upload, source = None, row_sources.checked(fields)
                if mode == TrainingRun.Mode.APPEND and not repeat:
                    run_requests.require_new(self.model, source)
            elif "instances" in body:
                upload = uploads.from_instances(self.model, body["instances"], by=by)
            else:
                upload, mode = run_requests.active_rows(self.model), TrainingRun.Mode.REPLACE.value
        run = run_requests.request(
            self.model, upload, mode=mode, by=by, source=source, search=search, repeat=repeat
        )
        return self._enqueued(request, run)

    def stored_bytes(self, request: Request) -> int:
        data = request.data
        has_rows = isinstance(data, CsvBody) or (isinstance(data, dict) and "instances" in data)
        return body_size(request, data) if has_rows else 0

    def _enqueued(self, request: Request, run: TrainingRun) -> Response:
        """Enqueues the run; returns 202, or with ``Prefer: wait=N`` 201 if it ends within N s."""
        queueing.enqueue(run)
        location = reverse("training-run", args=[self.model.name, run.pk], request=request)
        return JobResponse(request, run, partial(shown, request), location=location)

    def _mode(self, request: Request, data: Any) -> str:
        mode = request.query_params.get("mode")
        if mode is None and isinstance(data, dict):
            mode = data.get("mode")
        mode = TrainingRun.Mode.APPEND if mode is None else mode
        if mode not in TrainingRun.Mode.values:
            allowed = ("append", "replace")
            raise InvalidRows.single("mode", "not_a_level", "mode must be append or replace", allowed=allowed)
        return str(mode)


class TrainingRunView(ModelView):
    """One training run and its result."""

    @extend_schema(responses=TrainingRunSerializer, operation_id="get_training_run")
    def get(self, request: Request, model: str, run: int) -> Response:
        return Response(shown(request, run_of(self.model, run)))


class CancelRunView(ModelView):
    """Cancels a training run: at once while queued, else between two stages; by force after a grace
    period."""

    rights: ClassVar = {"POST": "train"}
    reads_body = False

    @extend_schema(request=None, responses={202: TrainingRunSerializer}, operation_id="cancel_training_run")
    def post(self, request: Request, model: str, run: int) -> Response:
        row = leases.request_cancel(run_of(self.model, run), by=requesting_user(request))
        return Response(shown(request, row), status=202)


def shown(request: Request, run: TrainingRun) -> dict[str, Any]:
    """Returns the JSON of a run; the log is included for clients with the right to train."""
    may_train = permissions.may(request.user, "train", run.registered_model)
    return dict(TrainingRunSerializer(run, context={"request": request, "with_log": may_train}).data)


def run_of(model: RegisteredModel, run_id: int) -> TrainingRun:
    """Returns a run of this model, or raises `NotFound`."""
    return lookup.get_row(model.runs.all(), run_id, model.name, "training run")


def _checked_body(data: Any) -> dict[str, Any]:
    """Checks the field names of a JSON request for a run: ``instances``, ``from`` or ``search``."""
    if not isinstance(data, dict):
        raise Malformed('send {"instances": [...], "mode": "append"} or a CSV', code="not_an_object")
    known = {"mode", "search", "repeat"}
    known |= {"instances"} if "from" not in data else {"from", "since", "until"}
    check_rows_request(
        data,
        known,
        "instances, mode, repeat and search, or from, since, until, mode, repeat and search",
        fields={*TrainingRequestSerializer().fields},
        needs={"instances", "from", "search"},
    )
    return data


def _repeat(request: Request, data: Any) -> bool:
    """Returns whether to append rows that the active version's dataset already holds."""
    value: Any = request.query_params.get("repeat")
    if value is not None:
        value = {"true": True, "false": False}.get(value.lower(), value)
    elif isinstance(data, dict):
        value = data.get("repeat")
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidRows.single("repeat", "not_a_boolean", "repeat must be true or false")


def _check_source(data: Any, provider: ModelProvider) -> None:
    """Checks a request for a model with a provider: it names the provider's source and holds no rows."""
    accepted = json.dumps(provider.source)
    if not isinstance(data, dict):
        raise UnsupportedForModel(
            f"{provider.name} does not support uploaded rows; send {accepted} to train it, "
            f"or use {provider.asked_at}"
        )
    for name, value in data.items():
        expected = provider.source.get(name)
        if expected is None or value != expected:
            raise InvalidRows.single(clip(name), "unknown_field", f"{provider.name} accepts only {accepted}")


def _search(search: Any) -> dict[str, Any]:
    """Returns the settings that are stored with a run that searches: how many candidates it tries."""
    trials = search.get("n_iter") if isinstance(search, dict) else None
    if not isinstance(search, dict) or set(search) - {"n_iter"}:
        raise InvalidRows.single("search", "not_an_object", 'search must be {"n_iter": 30}')
    if not isinstance(trials, int) or isinstance(trials, bool) or not 1 <= trials <= run_requests.MOST_TRIALS:
        message = f"n_iter must be a whole number from 1 to {run_requests.MOST_TRIALS}"
        raise InvalidRows.single("search", "out_of_bounds", message)
    return {"n_iter": trials}
