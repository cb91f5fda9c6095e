"""What the views that answer predictions share: the fence, the body, the caller."""

from __future__ import annotations

import time
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
from predictions.log.writer import Stale, writer
from predictions.rollouts import shadow_worker
from training import providers
from training.access import client_keys, permissions
from training.models import RegisteredModel
from training.parsers import CsvBody, JsonBody
from training.registry import lookup
from training.serving import routing
from training.serving.engine_cache import Served, served_to
from training.views.base import (
    csv_dialect,
)
from training.views.idempotent import REPLAYED, IdempotentView, retry_key
from vigia_ml.schema import Fault, InvalidRows
from vigia_ml.schema.dataset import RepeatedNames
from vigia_ml.schema.faults import clip
from vigia_ml.schema.row_decoder import Rows

CHANGES_SURVIVED = 3  # that may overtake a request before it holds the next one off


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
        self.generation = routing.generation()
        self.known = request._request.known = routing.at(self.generation)  # type: ignore[attr-defined]

    def find_model(self, name: str) -> RegisteredModel:
        if self.request.method != "POST":  # it shows more of the model than its name
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
        """The request's body answered by the active version, or by version `number`; see `fenced`."""
        providers.require_rows(model, "instances")
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
        answer : reads the body, answers and logs by `self.generation`; raises `predictions.log.writer.Stale`.
        """
        earlier = pipeline.replay(caller)
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
            shadow_worker.committed(named, made)
            made.count("", time.perf_counter() - request._request.since)  # type: ignore[attr-defined]

        found = pipeline.answer(ready, rows, caller, self.generation, committed=committed)
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
        permissions.require(request.user, "predict", model)


def teach(request: Request, model: RegisteredModel, number: int | None, generation: int) -> None:
    """Lets the fast path know what this answer was made from; it never asks the database itself."""
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


def _read(request: Request, ready: Served, data: Any) -> Rows:
    if isinstance(data, CsvBody):
        data.stream.seek(0)
        return reading.read_csv(ready, data.stream, csv_dialect(request))
    if isinstance(data, QueryDict):
        return reading.read_rows(ready, [form_cells(data)], text=True)
    assert isinstance(data, JsonBody)
    return reading.read_body(ready, data.raw)


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
