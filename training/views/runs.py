"""Training runs over HTTP: asked for, followed, stopped."""

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

from core.errors import NotFound
from training import providers, queueing
from training.access import permissions
from training.jobs import leases
from training.models import RegisteredModel, TrainingRun
from training.parsers import CsvBody, CSVParser, StrictJSONParser
from training.providers import ModelProvider, UnsupportedForModel
from training.runs import requests as run_requests
from training.runs import row_sources, uploads
from training.serializers import REPEAT, TrainingRequestSerializer, TrainingRunSerializer
from training.views.base import CSV_PARAMETERS, ModelView, before, csv_dialect, requesting_user
from training.views.prefer_wait import JobResponse
from vigia_ml.errors import Malformed
from vigia_ml.schema import Fault, InvalidRows
from vigia_ml.schema.faults import clip
from vigia_ml.schema.wrapping import wrapped


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
        return Response(TrainingRunSerializer(rows, many=True, context={"request": request}).data)

    @extend_schema(
        request={"application/json": TrainingRequestSerializer, "text/csv": OpenApiTypes.STR},
        responses={202: TrainingRunSerializer, 201: TrainingRunSerializer},
        operation_id="request_training_run",
        parameters=[
            OpenApiParameter("mode", str, enum=TrainingRun.Mode.values, description="For a CSV body."),
            OpenApiParameter("repeat", bool, description=f"For a CSV body: {REPEAT}"),
            *CSV_PARAMETERS,
            OpenApiParameter("Prefer", str, OpenApiParameter.HEADER, description="wait=60 waits that long."),
        ],
    )
    def post(self, request: Request, model: str) -> Response:
        data, by = request.data, requesting_user(request)
        maker = providers.find(self.model.name)
        if maker is not None:
            _check_source(data, maker)
            return self._enqueued(request, run_requests.request_again(self.model, by=by))
        run_requests.require_declared(self.model)
        mode, repeat = self._mode(request, data), _repeat(request, data)
        source = search = None
        if isinstance(data, CsvBody):
            told = csv_dialect(request)
            upload = uploads.from_csv(self.model, data.stream, by=by, source="CSV", told=told)
        else:
            asked = _asked(data)
            if "search" in asked:
                search = _search(asked["search"])
                run_requests.require_space(self.model)  # before rows are stored
            if "from" in asked:
                rest = {name: asked[name] for name in asked if name not in ("mode", "search", "repeat")}
                upload, source = None, row_sources.checked(rest)
                if mode == TrainingRun.Mode.APPEND and not repeat:
                    run_requests.require_new(self.model, source)
            elif "instances" in asked:
                upload = uploads.from_instances(self.model, asked["instances"], by=by)
            else:
                upload, mode = run_requests.active_rows(self.model), TrainingRun.Mode.REPLACE.value
        run = run_requests.request(
            self.model, upload, mode=mode, by=by, source=source, search=search, repeat=repeat
        )
        return self._enqueued(request, run)

    def _enqueued(self, request: Request, run: TrainingRun) -> Response:
        """202 at once; with ``Prefer: wait=N`` as late as that, and 201 when the run has finished."""
        queueing.enqueue(run)
        location = reverse("training-run", args=[self.model.name, run.pk], request=request)
        return JobResponse(request, run, partial(shown, request), location=location)

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


class TrainingRunView(ModelView):
    """One training run and what became of it."""

    @extend_schema(responses=TrainingRunSerializer, operation_id="get_training_run")
    def get(self, request: Request, model: str, run: int) -> Response:
        return Response(shown(request, run_of(self.model, run)))


class CancelRunView(ModelView):
    """Stops a training run: at once while queued, else between two stages, and by force after a grace."""

    rights: ClassVar = {"POST": "train"}
    reads_body = False

    @extend_schema(request=None, responses={202: TrainingRunSerializer}, operation_id="cancel_training_run")
    def post(self, request: Request, model: str, run: int) -> Response:
        found = leases.request_cancel(run_of(self.model, run), by=requesting_user(request))
        return Response(shown(request, found), status=202)


def shown(request: Request, run: TrainingRun) -> dict[str, Any]:
    """A run as this client may see it."""
    may_train = permissions.may(request.user, "train", run.registered_model)
    return dict(TrainingRunSerializer(run, context={"request": request, "with_log": may_train}).data)


def run_of(model: RegisteredModel, run_id: int) -> TrainingRun:
    """A run of this model, or `NotFound`."""
    found = model.runs.filter(pk=run_id).first() if run_id < 2**63 else None
    if found is None:
        raise NotFound(f"{model.name} has no training run {str(run_id)[:20]}")
    return found


def _asked(data: Any) -> dict[str, Any]:
    """The JSON body of a request for a run, its names checked: ``instances`` or ``from`` or ``search``."""
    if not isinstance(data, dict):
        raise Malformed('send {"instances": [...], "mode": "append"} or a CSV', code="not_an_object")
    fault = wrapped(data, {*TrainingRequestSerializer().fields}.__contains__, '{"instances": [{…}, …]}')
    if fault is not None:
        raise InvalidRows([fault], message=fault.message)
    known = {"mode", "search", "repeat"}
    known |= {"instances"} if "from" not in data else {"from", "since", "until"}
    said = "only instances, mode, repeat and search are read, or from, since, until, mode, repeat and search"
    faults = [Fault(clip(name), "unknown_field", said) for name in sorted(set(data) - known)]
    if not {"instances", "from", "search"} & set(data):
        faults.append(Fault("instances", "missing_field", "instances is missing"))
    elif "instances" in data and (not isinstance(data["instances"], list) or not data["instances"]):
        faults.append(Fault("instances", "not_an_array", "instances must be an array with at least one row"))
    if faults:
        raise InvalidRows(faults, message="the request is invalid")
    return data


def _repeat(request: Request, data: Any) -> bool:
    """Whether rows are to be appended although the active version's dataset holds them."""
    given: Any = request.query_params.get("repeat")
    if given is not None:
        given = {"true": True, "false": False}.get(given.lower(), given)
    elif isinstance(data, dict):
        given = data.get("repeat")
    if given is None or isinstance(given, bool):
        return bool(given)
    said = "repeat must be true or false"
    raise InvalidRows([Fault("repeat", "not_a_boolean", said)], message=said)


def _check_source(data: Any, maker: ModelProvider) -> None:
    """Of a model of an application above: rows do not come with the request."""
    if not isinstance(data, dict):
        said = f"{maker.name} takes no rows here: send {json.dumps(maker.source)}"
        raise UnsupportedForModel(f"{said}; it answers at {maker.asked_at}")
    for name, value in data.items():
        wanted = maker.source.get(name)
        if wanted is None or value != wanted:
            fault = Fault(clip(name), "unknown_field", f"{maker.name} reads {json.dumps(maker.source)} alone")
            raise InvalidRows([fault], message=fault.message)


def _search(asked: Any) -> dict[str, Any]:
    """What is stored with a run that searches: how many candidates it tries."""
    tried = asked.get("n_iter") if isinstance(asked, dict) else None
    if not isinstance(asked, dict) or set(asked) - {"n_iter"}:
        raise InvalidRows([Fault("search", "not_an_object", 'search must be {"n_iter": 30}')])
    if not isinstance(tried, int) or isinstance(tried, bool) or not 1 <= tried <= run_requests.MOST_TRIALS:
        said = f"n_iter must be a whole number from 1 to {run_requests.MOST_TRIALS}"
        raise InvalidRows([Fault("search", "out_of_bounds", said)], message=said)
    return {"n_iter": tried}
