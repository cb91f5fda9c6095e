"""Reads the log, newest first, always by an index: a page costs the same at any length of the log."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Max, Q

from core.uuid7 import lowest_at
from predictions.models import Outcome, Prediction
from training.models import RegisteredModel, sharing_versions

PAGE = 100
LARGEST_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Filters of the log: since <= time < until, version, client key, ids before a cursor."""

    since: dt.datetime | None = None
    until: dt.datetime | None = None
    version: int | None = None
    key: str | None = None
    before: uuid.UUID | None = None
    limit: int = PAGE


def page(model: RegisteredModel, query: LogQuery) -> tuple[list[Prediction], uuid.UUID | None]:
    """Returns (rows, cursor of the next page or None)."""
    rows = Prediction.objects.filter(registered_model=model).prefetch_related(*sharing_versions("version"))
    if query.since is not None:
        rows = rows.filter(id__gte=lowest_at(query.since))
    if query.until is not None:
        rows = rows.filter(id__lt=lowest_at(query.until))
    if query.version is not None:
        rows = rows.filter(version_id__in=model.versions.filter(number=query.version).values_list("pk")[:1])
    if query.key is not None:
        if "\x00" in query.key:
            return [], None
        rows = rows.filter(key=query.key)
    if query.before is not None:
        rows = rows.filter(id__lt=query.before)
    shown = list(rows.order_by("-id")[: query.limit + 1])
    more = len(shown) > query.limit
    shown = shown[: query.limit]
    for row in shown:
        row.registered_model = model
    return shown, shown[-1].id if more else None


def by_ids(ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Prediction]:
    """Returns rows of the log by id."""
    rows = Prediction.objects.filter(pk__in=ids).prefetch_related(*sharing_versions("version"))
    return {row.pk: row for row in rows}


def find(identifier: uuid.UUID) -> Prediction | None:
    """Returns one row with everything that its lineage needs, or None."""
    related = ("registered_model", "version__registered_model", "version__dataset", "version__created_by")
    return Prediction.objects.select_related(*related).filter(pk=identifier).first()


@dataclass(frozen=True, slots=True)
class OutcomeQuery:
    """Filters of outcomes: since <= time of receipt < until, client key, prediction, older than `before`.

    before : id of an outcome.
    """

    since: dt.datetime | None = None
    until: dt.datetime | None = None
    key: str | None = None
    prediction: uuid.UUID | None = None
    before: int | None = None
    limit: int = PAGE


def outcomes_page(
    model: RegisteredModel, query: OutcomeQuery
) -> tuple[list[tuple[Outcome, bool]], int | None]:
    """Returns ((outcome, whether it is current), last received first; cursor of the next page or None).

    The newest of several outcomes of one prediction is current, and so is the newest of several outcomes
    that wait under one key.
    """
    rows = Outcome.objects.filter(registered_model=model).select_related("client")
    if query.since is not None:
        rows = rows.filter(received_at__gte=query.since)
    if query.until is not None:
        rows = rows.filter(received_at__lt=query.until)
    if query.key is not None:
        if "\x00" in query.key:
            return [], None
        rows = rows.filter(key=query.key)
    if query.prediction is not None:
        rows = rows.filter(prediction_id=query.prediction)
    if query.before is not None:
        last = Outcome.objects.filter(registered_model=model, pk=query.before).first()
        if last is None:
            return [], None
        older = Q(received_at__lt=last.received_at) | Q(received_at=last.received_at, pk__lt=last.pk)
        # The index serves the first condition; the second one leaves out outcomes of the same request.
        rows = rows.filter(received_at__lte=last.received_at).filter(older)
    shown = list(rows.order_by("-received_at", "-pk")[: query.limit + 1])
    more = len(shown) > query.limit
    shown = shown[: query.limit]
    current = _current_ids(model, shown)
    return [(row, row.pk in current) for row in shown], shown[-1].pk if more else None


def _current_ids(model: RegisteredModel, rows: Sequence[Outcome]) -> set[int]:
    """Returns the ids of the current outcomes of the predictions and keys that these rows belong to."""
    of_model = Outcome.objects.filter(registered_model=model).order_by()
    ids = {row.prediction_id for row in rows if row.prediction_id is not None}
    keys = {row.key for row in rows if row.prediction_id is None}
    joined = of_model.filter(prediction_id__in=ids).values("prediction_id")
    waiting = of_model.filter(prediction_id__isnull=True, key__in=keys).values("key")
    return {
        newest
        for outcomes in (joined, waiting)
        for newest in outcomes.annotate(newest=Max("pk")).values_list("newest", flat=True)
    }
