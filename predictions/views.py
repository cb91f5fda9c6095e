"""Predictions over HTTP: parse, call the inference path, present; and the log's queries."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from django.conf import settings
from django.contrib import auth
from django.http import QueryDict
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.functional import SimpleLazyObject
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from predictions import export, inference, shadowing
from predictions.errors import LogUnavailable
from predictions.export import CSVRenderer
from predictions.inference import Answer, Caller, Prepared
from predictions.log import Stale, writer
from predictions.serializers import AnswerSerializer as Answered
from predictions.serializers import PredictionDetailSerializer, PredictionPageSerializer, PredictionSerializer
from predictions.services import queries
from training.errors import NotFound
from training.models import RegisteredModel
from training.parsers import INSTANCE_PARSERS, CsvBody, JsonBody
from training.schema import Fault, InvalidRows
from training.schema.compiled import Rows
from training.schema.dataset import RepeatedNames
from training.schema.faults import clip
from training.serializers import InstanceSerializer, serializer_for
from training.services import access, keys, makers, registry, snapshot
from training.services.serving import Served, served, served_to
from training.views.base import (
    CSV_PARAMETERS,
    ModelView,
    bad_parameter,
    csv_dialect,
    following_page,
    moment_of,
    whole_of,
)
from training.views.idempotent import REPLAYED, IdempotentView, retry_key

CHANGES_SURVIVED = 3  # that may overtake a request before it holds the next one off
LOG_FILTERS = [
    OpenApiParameter("since", OpenApiTypes.DATETIME, description="From this moment on."),
    OpenApiParameter("until", OpenApiTypes.DATETIME, description="Before this moment."),
    OpenApiParameter("version", int),
    OpenApiParameter("key", str, description="The client's own reference."),
    OpenApiParameter("limit", int, description=f"Rows a page, at most {queries.LARGEST_PAGE}."),
    OpenApiParameter("cursor", str, description="From `next` of the page before."),
]
INCLUDE = "inputs"
INSTANCES = {"application/json": OpenApiTypes.OBJECT, "text/csv": OpenApiTypes.STR}
PREDICT_PARAMETERS = [
    *CSV_PARAMETERS,
    OpenApiParameter(
        "include", str, enum=[INCLUDE], description="Adds each row's key and inputs to its answer."
    ),
]


class Fenced(IdempotentView):
    """A view whose answers stand behind the fence: what is known is stamped before the key is looked at."""

    generation = 0
    stores_own_answers = True
    model: RegisteredModel

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        self._look(request)
        super().initial(request, *args, **kwargs)

    def _look(self, request: Request) -> None:
        """Reads the generation: all that a snapshot of it knows holds now, without a query of its own."""
        self.generation = snapshot.generation()
        self.known = request._request.known = snapshot.at(self.generation)  # type: ignore[attr-defined]

    def find_model(self, name: str) -> RegisteredModel:
        if self.request.method != "POST":  # it shows more of the model than its name
            return registry.get_model(name)
        model = self.known.peek_model(name)
        if model is None:
            model = registry.get_model(name)
            self.known.keep_model(model)
        return model

    def require(self, request: Request, right: access.Right) -> None:
        """Raises `Forbidden` unless the client has this right for the view's model."""
        token = request.auth
        if right == "predict" and token is not None and self.known.may_predict(token, self.model):
            return
        access.require(request.user, right, self.model)

    def predict(self, request: Request, model: RegisteredModel, data: Any, number: int | None) -> Answer:
        """The request's body answered by the active version, or by version `number`; see `fenced`."""
        makers.require_rows(model, "instances")
        caller = caller_of(request)
        return self.fenced(request, model, caller, lambda: self._answer(request, model, data, caller, number))

    def fenced(
        self, request: Request, model: RegisteredModel, caller: Caller, answer: Callable[[], Answer]
    ) -> Answer:
        """An answer that was committed from what is known now; or the stored one to the caller's idempotency
        key.

        When a version, a key or a right changes meanwhile, all is done again: the key is looked up, the right
        is asked for, and the body is read by the schema of what is active then.

        Parameters
        ----------
        answer : reads the body, answers and logs by `self.generation`; raises `predictions.log.Stale`.
        """
        earlier = inference.replay(caller)
        if earlier is not None:
            return earlier
        for _ in range(CHANGES_SURVIVED):
            try:
                return answer()
            except Stale:
                self._look_again(request, model)
        with writer().holding_off_changes():
            self._look_again(request, model)
            try:
                return answer()
            except Stale:  # the hold was lost with its connection
                raise LogUnavailable from None

    def _answer(
        self, request: Request, model: RegisteredModel, data: Any, caller: Caller, number: int | None
    ) -> Answer:
        ready, named = served_to(model, number, caller.client_id, self.generation)
        rows = _read(request, ready, data)

        def committed(made: Prepared) -> None:
            shadowing.committed(named, made)
            made.count("", time.perf_counter() - request._request.since)  # type: ignore[attr-defined]

        found = inference.answer(ready, rows, caller, self.generation, committed=committed)
        teach(request, model, number, self.generation)
        return found

    def _look_again(self, request: Request, model: RegisteredModel) -> None:
        self._look(request)
        # A session's user was loaded before the change, and is remembered on the request.
        plain = request._request
        plain.__dict__.pop("_cached_user", None)
        plain.user = SimpleLazyObject(lambda: auth.get_user(plain))  # type: ignore[assignment]
        request._authenticate()  # type: ignore[attr-defined]
        self.check_permissions(request)
        access.require(request.user, "predict", model)


class PredictView(Fenced, ModelView):
    """Asks one version, active or not. Send one JSON object, an array of objects, or a CSV with header."""

    rights: ClassVar = {"POST": "predict"}
    parser_classes = INSTANCE_PARSERS
    renderer_classes = [*APIView.renderer_classes, CSVRenderer]
    max_bytes = settings.PREDICT_MAX_BYTES

    @extend_schema(
        operation_id="predict_version", request=INSTANCES, responses=Answered, parameters=PREDICT_PARAMETERS
    )
    def post(self, request: Request, model: str, number: int | None = None) -> Response:
        return self.answered(request, number)

    def answered(self, request: Request, number: int | None) -> Response:
        """The answers in the order of the request. A CSV also has each row's key; with ``?include=inputs``
        either form has the key and the inputs."""
        with_inputs = _with_inputs(request)
        answer = self.predict(request, self.model, request.data, number)
        response = respond(answer)
        if with_inputs or request.accepted_renderer.format == CSVRenderer.format:
            response.data = answer.body | {"predictions": _with_rows(answer, with_inputs=with_inputs)}
        return response

    # -- what the browsable API shows ----------------------------------------------------------------

    def get_serializer(self, *args: Any, **kwargs: Any) -> InstanceSerializer:
        """The form of the version that answers: with a valid example, or with what was just sent."""
        if self.request._request.method == "POST" and isinstance(self.request.data, QueryDict):
            kwargs |= {"data": typed_cells(self.request.data), "context": {"text": True}}
        return serializer_for(self.model.name, self._schema())(*args, **kwargs)

    def raw_example(self) -> str:
        return json.dumps(self._schema().example, indent=2, ensure_ascii=False)

    def _schema(self) -> Any:
        return served(self.model, self.kwargs.get("number")).schema


class PredictionsView(PredictView):
    """Predicts (POST), or reads the model's log, newest first (GET)."""

    rights: ClassVar = {"POST": "predict", "GET": "read_log"}

    @extend_schema(
        operation_id="list_predictions", parameters=LOG_FILTERS, responses=PredictionPageSerializer
    )
    def get(self, request: Request, model: str) -> HttpResponseBase:
        wanted = queries.Wanted(
            since=moment_of(request, "since"),
            until=moment_of(request, "until"),
            version=whole_of(request, "version", 2**31 - 1),
            key=request.query_params.get("key") or None,
            before=_cursor(request),
            limit=min(whole_of(request, "limit", 10**6) or queries.PAGE, queries.LARGEST_PAGE),
        )
        rows, cursor = queries.page(self.model, wanted)
        following = following_page(request, reverse("predictions", args=[self.model.name]), cursor)
        headers = {"Link": f'<{following}>; rel="next"'} if following else {}
        show = PredictionSerializer().to_representation
        if request.accepted_renderer.format == CSVRenderer.format:
            return export.streamed(rows, show, headers)
        body = {"model": self.model.name, "predictions": [show(row) for row in rows], "next": following}
        response = Response(body, headers=headers)
        # View, request and response hold each other until the collector comes: not with a thousand rows.
        response.add_post_render_callback(_drop_data)
        return response

    @extend_schema(
        operation_id="predict", request=INSTANCES, responses=Answered, parameters=PREDICT_PARAMETERS
    )
    def post(self, request: Request, model: str, number: int | None = None) -> Response:
        return self.answered(request, None)


class PredictionView(APIView):
    """One logged prediction: inputs, output, version, lineage."""

    @extend_schema(operation_id="get_prediction", responses=PredictionDetailSerializer)
    def get(self, request: Request, prediction: uuid.UUID) -> Response:
        row = queries.find(prediction)
        # Without the right to read this model's log, a row is as if it were not there.
        if row is None or not access.may(request.user, "read_log", row.registered_model):
            raise NotFound(f"there is no prediction {prediction}")
        return Response(PredictionDetailSerializer(row).data)


def teach(request: Request, model: RegisteredModel, number: int | None, generation: int) -> None:
    """Lets the fast path know what this answer was made from; it never asks the database itself."""
    known = snapshot.current()
    if known.generation != generation:
        known = snapshot.refresh(known.generation)
    known.find_version(model.name, number, request.user.pk)
    key = keys.key_of(request.headers.get("Authorization", ""))
    if key is not None:
        known.find_client(key)


def respond(answer: Answer) -> Response:
    headers = {REPLAYED: "true"} if answer.replayed else {}
    return Response(answer.body, headers=headers)


def _drop_data(response: Response) -> None:
    response.data = None


def _with_inputs(request: Request) -> bool:
    include = request.query_params.get("include")
    if include not in (None, INCLUDE):
        raise bad_parameter("include", f"include must be {INCLUDE}", include)
    return include is not None


def _with_rows(answer: Answer, *, with_inputs: bool) -> list[dict[str, Any]]:
    """The answers, each with the key (and the inputs) that the log has under its id."""
    answers = answer.body["predictions"]
    logged = queries.by_ids([uuid.UUID(each["id"]) for each in answers])
    rows = [(each, logged[uuid.UUID(each["id"])]) for each in answers]
    return [each | {"key": row.key} | ({"inputs": row.inputs} if with_inputs else {}) for each, row in rows]


def _read(request: Request, ready: Served, data: Any) -> Rows:
    if isinstance(data, CsvBody):
        data.stream.seek(0)
        return inference.read_csv(ready, data.stream, csv_dialect(request))
    if isinstance(data, QueryDict):
        return inference.read_rows(ready, [form_cells(data)], text=True)
    assert isinstance(data, JsonBody)
    return inference.read_body(ready, data.raw)


def form_cells(data: QueryDict, lists: Mapping[str, str] | None = None) -> RepeatedNames:
    """The one instance an HTML form holds, as text; a name that is there twice is said to be.

    Parameters
    ----------
    lists : names of fields that may be there several times, and what stands between their values then.

    Raises
    ------
    InvalidRows : a field holds a file.
    """
    said = "a field must be text, not a file"
    faults = [
        Fault(clip(name), "not_text", said)
        for name, values in data.lists()
        if not all(isinstance(value, str) for value in values)
    ]
    if faults:
        raise InvalidRows(faults, rows=1, bad=1, message=said)
    joined, cells, repeated = lists or {}, typed_cells(data), []
    for name, values in data.lists():
        if name in joined:
            cells[name] = joined[name].join(values)
        elif name in cells and len(values) > 1:
            repeated.append(name)
    found = RepeatedNames(cells)
    found.repeated = tuple(repeated)
    return found


def typed_cells(data: QueryDict) -> dict[str, str]:
    """What a form is shown with again: of each field its last text."""
    last = {name: values[-1] for name, values in data.lists() if values and name != "csrfmiddlewaretoken"}
    return {name: value for name, value in last.items() if isinstance(value, str)}


def caller_of(request: Request) -> Caller:
    """The client of a request; with an Idempotency-Key also what exactly is asked."""
    retry = retry_key(request)
    key, digest = (None, "") if retry is None else (retry.key, retry.request_sha256)
    return Caller(request.user.pk, request._request.request_id, key, digest)  # type: ignore[attr-defined]


def _cursor(request: Request) -> uuid.UUID | None:
    given = request.query_params.get("cursor")
    if not given:
        return None
    try:
        return uuid.UUID(given)
    except ValueError:
        raise bad_parameter("cursor", "cursor must come from an earlier page", given) from None
