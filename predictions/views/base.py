"""Common parts of the prediction views: the generation check, the body, the caller."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from django.contrib import auth
from django.http import QueryDict
from django.utils.functional import SimpleLazyObject
from rest_framework.request import Request
from rest_framework.response import Response

from predictions.errors import LogUnavailable
from predictions.inference import pipeline, reading
from predictions.inference.pipeline import Answer, Caller, Prepared
from predictions.log import queries
from predictions.log.writer import Stale, writer
from predictions.rollouts import shadow_worker
from training import providers
from training.access import client_keys, permissions
from training.models import RegisteredModel
from training.parsers import CsvBody, JsonBody
from training.registry import lookup
from training.serving import routing
from training.serving.engine_cache import Served, served_to
from training.serving.routing import RoutedVersion
from training.views.base import bad_parameter, csv_dialect, int_param
from training.views.idempotent import REPLAYED, IdempotentView, retry_key
from vigia_ml.schema import Fault, InvalidRows
from vigia_ml.schema.dataset import RepeatedNames
from vigia_ml.schema.faults import clip
from vigia_ml.schema.row_decoder import Rows

CHANGES_SURVIVED = 3  # after so many stale attempts a request holds further changes off


class GenerationCheckedView(IdempotentView):
    """A view whose answers the fence guards: it reads the generation before it checks the key.

    Attributes
    ----------
    routed : the version that answers; set before `read_rows`.
    """

    generation = 0
    stores_own_answers = True
    model: RegisteredModel
    routed: RoutedVersion

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        self._read_generation(request)
        super().initial(request, *args, **kwargs)

    def _read_generation(self, request: Request) -> None:
        """Reads the generation; the routing snapshot of that generation is valid without further queries."""
        self.generation = routing.generation()
        self.known = request._request.known = routing.at(self.generation)  # type: ignore[attr-defined]

    def find_model(self, name: str) -> RegisteredModel:
        if self.request.method != "POST":  # GET shows more of the model than its name
            return lookup.get_model(name)
        model = self.known.peek_model(name)
        if model is None:
            model = lookup.get_model(name)
            self.known.keep_model(model)
        return model

    def require(self, request: Request, right: permissions.Right) -> None:
        """Raises `Forbidden` unless the client has this right for the view's model."""
        token = request.auth
        if right == "predict" and token is not None and self.known.may_predict(token, self.model):
            return
        permissions.require(request.user, right, self.model)

    def predict(self, request: Request, model: RegisteredModel, data: Any, number: int | None) -> Answer:
        """Returns the answer of the active version, or of version `number`, to the body; see `fenced`."""
        providers.require_rows(model, "instances")
        caller = caller_of(request)
        return self.fenced(request, model, caller, lambda: self._answer(request, model, data, caller, number))

    def fenced(
        self, request: Request, model: RegisteredModel, caller: Caller, answer: Callable[[], Answer]
    ) -> Answer:
        """Returns an answer committed at the current generation, or the stored answer to the caller's
        idempotency key.

        If a version, a key or a right changes meanwhile, the view repeats all steps: it checks the key and
        the right, and reads the body by the schema of the version that is active then.

        Parameters
        ----------
        answer : reads the body, answers and logs at `self.generation`; may raise
            `predictions.log.writer.Stale`.
        """
        earlier = pipeline.replay(caller)
        if earlier is not None:
            return earlier
        for _ in range(CHANGES_SURVIVED):
            try:
                return answer()
            except Stale:
                self._refresh_generation(request, model)
        with writer().holding_off_changes():
            self._refresh_generation(request, model)
            try:
                return answer()
            except Stale:  # the hold was lost with its connection
                raise LogUnavailable from None

    def _answer(
        self, request: Request, model: RegisteredModel, data: Any, caller: Caller, number: int | None
    ) -> Answer:
        ready, version = served_to(model, number, caller.client_id, self.generation)
        self.routed = version
        rows = self.read_rows(request, ready, data)

        def committed(prepared: Prepared) -> None:
            shadow_worker.committed(version, prepared)
            prepared.count("", time.perf_counter() - request._request.since)  # type: ignore[attr-defined]

        answer = pipeline.answer(
            ready, rows, caller, self.generation, every_class=version.every_class, committed=committed
        )
        warm_cache(request, model, number, self.generation)
        return answer

    def read_rows(self, request: Request, ready: Served, data: Any) -> Rows:
        """Returns the rows of the body, all valid. A protocol's view reads another format."""
        if isinstance(data, CsvBody):
            data.stream.seek(0)
            return reading.read_csv(ready, data.stream, csv_dialect(request))
        if isinstance(data, QueryDict):
            return reading.read_rows(ready, [form_cells(data)], text=True)
        assert isinstance(data, JsonBody)
        return reading.read_body(ready, data.raw)

    def _refresh_generation(self, request: Request, model: RegisteredModel) -> None:
        self._read_generation(request)
        # The request caches the session's user, who was loaded before the change.
        plain = request._request
        plain.__dict__.pop("_cached_user", None)
        plain.user = SimpleLazyObject(lambda: auth.get_user(plain))  # type: ignore[assignment]
        request._authenticate()  # type: ignore[attr-defined]
        self.check_permissions(request)
        permissions.require(request.user, "predict", model)


def warm_cache(request: Request, model: RegisteredModel, number: int | None, generation: int) -> None:
    """Loads the version and the client into the fast path's snapshot: the fast path sends no queries."""
    known = routing.current()
    if known.generation != generation:
        known = routing.refresh(known.generation)
    known.find_version(model.name, number, request.user.pk)
    key = client_keys.key_of(request.headers.get("Authorization", ""))
    if key is not None:
        known.find_client(key)


def respond(answer: Answer) -> Response:
    headers = {REPLAYED: "true"} if answer.replayed else {}
    return Response(answer.body, headers=headers)


def form_cells(data: QueryDict, lists: Mapping[str, str] | None = None) -> RepeatedNames:
    """Returns the one instance of an HTML form, as text, with the names that occur twice in `repeated`.

    Parameters
    ----------
    lists : names of fields that may occur several times, and the separator of their values.

    Raises
    ------
    InvalidRows : a field holds a file.
    """
    message = "a field must be text, not a file"
    faults = [
        Fault(clip(name), "not_text", message)
        for name, values in data.lists()
        if not all(isinstance(value, str) for value in values)
    ]
    if faults:
        raise InvalidRows(faults, rows=1, bad=1, message=message)
    joined, cells, repeated = lists or {}, typed_cells(data), []
    for name, values in data.lists():
        if name in joined:
            cells[name] = joined[name].join(values)
        elif name in cells and len(values) > 1:
            repeated.append(name)
    instance = RepeatedNames(cells)
    instance.repeated = tuple(repeated)
    return instance


def typed_cells(data: QueryDict) -> dict[str, str]:
    """Returns the last text of each field, which fills the form again."""
    last = {name: values[-1] for name, values in data.lists() if values and name != "csrfmiddlewaretoken"}
    return {name: value for name, value in last.items() if isinstance(value, str)}


def uuid_param(request: Request, name: str, message: str) -> uuid.UUID | None:
    """Returns an id from a query parameter, or None when it is absent; `message` says what it must be."""
    text = request.query_params.get(name)
    try:
        return None if text is None else uuid.UUID(text)
    except ValueError:
        raise bad_parameter(name, f"{name} must {message}", text or "") from None


def page_size(request: Request) -> int:
    return min(int_param(request, "limit", 10**6) or queries.PAGE, queries.LARGEST_PAGE)


def caller_of(request: Request) -> Caller:
    """Returns the caller of a request; with an Idempotency-Key also the hash of the request."""
    retry = retry_key(request)
    key, digest = (None, "") if retry is None else (retry.key, retry.request_sha256)
    return Caller(request.user.pk, request._request.request_id, key, digest)  # type: ignore[attr-defined]
