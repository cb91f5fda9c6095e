"""Reading the log, newest first, always by an index: a page costs the same whatever the log's length."""

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
    """Which rows: from `since` on, before `until`, of one version, of one client key, before a cursor."""

    since: dt.datetime | None = None
    until: dt.datetime | None = None
    version: int | None = None
    key: str | None = None
    before: uuid.UUID | None = None
    limit: int = PAGE


def page(model: RegisteredModel, wanted: LogQuery) -> tuple[list[Prediction], uuid.UUID | None]:
    """(rows, cursor of the next page or None)."""
    rows = Prediction.objects.filter(registered_model=model).prefetch_related(*sharing_versions("version"))
    if wanted.since is not None:
        rows = rows.filter(id__gte=lowest_at(wanted.since))
    if wanted.until is not None:
        rows = rows.filter(id__lt=lowest_at(wanted.until))
    if wanted.version is not None:
        rows = rows.filter(version_id__in=model.versions.filter(number=wanted.version).values_list("pk")[:1])
    if wanted.key is not None:
        if "\x00" in wanted.key:
            return [], None
        rows = rows.filter(key=wanted.key)
    if wanted.before is not None:
        rows = rows.filter(id__lt=wanted.before)
    found = list(rows.order_by("-id")[: wanted.limit + 1])
    more = len(found) > wanted.limit
    found = found[: wanted.limit]
    for row in found:
        row.registered_model = model
    return found, found[-1].id if more else None


def by_ids(ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Prediction]:
    """Rows of the log by id."""
    rows = Prediction.objects.filter(pk__in=ids).prefetch_related(*sharing_versions("version"))
    return {row.pk: row for row in rows}


def find(identifier: uuid.UUID) -> Prediction | None:
    """One row with all its lineage needs."""
    related = ("registered_model", "version__registered_model", "version__dataset", "version__created_by")
    return Prediction.objects.select_related(*related).filter(pk=identifier).first()


@dataclass(frozen=True, slots=True)
class WantedOutcomes:
    """Which outcomes: received from `since` on, before `until`; under one key; of one prediction; older than
    the one with the id `before`."""

    since: dt.datetime | None = None
    until: dt.datetime | None = None
    key: str | None = None
    prediction: uuid.UUID | None = None
    before: int | None = None
    limit: int = PAGE


def outcomes_page(
    model: RegisteredModel, wanted: WantedOutcomes
) -> tuple[list[tuple[Outcome, bool]], int | None]:
    """((outcome, whether it holds), the last received first; cursor of the next page or None).

    Of several outcomes of one prediction the newest holds; so does it of several that wait under one key.
    """
    rows = Outcome.objects.filter(registered_model=model).select_related("client")
    if wanted.since is not None:
        rows = rows.filter(received_at__gte=wanted.since)
    if wanted.until is not None:
        rows = rows.filter(received_at__lt=wanted.until)
    if wanted.key is not None:
        if "\x00" in wanted.key:
            return [], None
        rows = rows.filter(key=wanted.key)
    if wanted.prediction is not None:
        rows = rows.filter(prediction_id=wanted.prediction)
    if wanted.before is not None:
        last = Outcome.objects.filter(registered_model=model, pk=wanted.before).first()
        if last is None:
            return [], None
        older = Q(received_at__lt=last.received_at) | Q(received_at=last.received_at, pk__lt=last.pk)
        # The first condition is the index's; the second leaves out what came in the same request.
        rows = rows.filter(received_at__lte=last.received_at).filter(older)
    found = list(rows.order_by("-received_at", "-pk")[: wanted.limit + 1])
    more = len(found) > wanted.limit
    found = found[: wanted.limit]
    holding = _holding(model, found)
    return [(row, row.pk in holding) for row in found], found[-1].pk if more else None


def _holding(model: RegisteredModel, rows: Sequence[Outcome]) -> set[int]:
    """The ids of the outcomes that hold, of all that these rows are of."""
    of_model = Outcome.objects.filter(registered_model=model).order_by()
    ids = {row.prediction_id for row in rows if row.prediction_id is not None}
    keys = {row.key for row in rows if row.prediction_id is None}
    joined = of_model.filter(prediction_id__in=ids).values("prediction_id")
    waiting = of_model.filter(prediction_id__isnull=True, key__in=keys).values("key")
    return {
        newest
        for question in (joined, waiting)
        for newest in question.annotate(newest=Max("pk")).values_list("newest", flat=True)
    }
