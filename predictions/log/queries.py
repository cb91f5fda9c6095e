"""Reads the log, newest first, always by an index: a page costs the same at any length of the log."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from django.db.models import BooleanField, ExpressionWrapper, Max, Q, QuerySet

from core.uuid7 import lowest_at
from predictions.models import Batch, Outcome, Prediction
from predictions.models.log import class_names
from training.models import ModelVersion, RegisteredModel, sharing_versions, small_versions

PAGE = 100
LARGEST_PAGE = 1_000
CLOCKS_APART = dt.timedelta(minutes=10)
"""Most that the clocks of workers and database differ; a chunk may also commit after its batch has ended."""
PIECE = 100
"""Rows of the log that an answer holds in memory at the same time."""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Filters of the log: since <= time < until, version, key, batch, ids before a cursor."""

    since: dt.datetime | None = None
    until: dt.datetime | None = None
    version: int | None = None
    key: str | None = None
    batch: int | None = None
    before: uuid.UUID | None = None
    limit: int = PAGE


Head = tuple[uuid.UUID, int, bool, bool]
"""The id of a row, its version, and whether it has a probability, and one of each of several classes."""


class LogPage:
    """The rows of one page, newest first. Iterating a large page reads it in pieces of `PIECE` rows,
    so that it is never in memory as a whole.

    Attributes
    ----------
    version_ids : versions of the rows, in order of their first row. cursor : of the next page, or None.
    has_probability : whether any row has a probability.
    """

    def __init__(self, heads: Sequence[Head], *, cursor: uuid.UUID | None) -> None:
        self.version_ids = list(dict.fromkeys(version for _, version, *_ in heads))
        self.has_probability = any(has for *_, has, _ in heads)
        self._with_classes = {version for _, version, _, by_class in heads if by_class}
        self._with_probability = {version for _, version, has, _ in heads if has}
        self.cursor = cursor
        self._ids = [identifier for identifier, *_ in heads]

    @classmethod
    def of(cls, rows: QuerySet[Prediction, Prediction], limit: int) -> LogPage:
        """Returns the first `limit` rows; the query must be in the log's order."""
        flags = [
            ExpressionWrapper(Q((f"{name}__isnull", False)), BooleanField())
            for name in ("probability", "by_class")
        ]
        heads: list[Head] = list(rows.values_list("id", "version_id", *flags)[: limit + 1])
        more, heads = len(heads) > limit, heads[:limit]
        return cls(heads, cursor=heads[-1][0] if more else None)

    @cached_property
    def versions(self) -> dict[int, ModelVersion]:
        """Versions by id; the rows share them."""
        return small_versions().in_bulk(self.version_ids)

    @property
    def class_names(self) -> list[str]:
        """The classes whose probabilities some row has; see `Prediction.probabilities`."""
        names: dict[str, None] = {}
        for version_id in self.version_ids:
            if version_id not in self._with_probability:
                continue
            version = self.versions[version_id]
            of_version = class_names(version)
            of_two = len(of_version) == 2 and version.registered_model.answers_probabilities
            if of_two or version_id in self._with_classes:
                names.update(dict.fromkeys(of_version))
        return list(names)

    def __iter__(self) -> Iterator[Prediction]:
        for start in range(0, len(self._ids), PIECE):
            for row in Prediction.objects.filter(pk__in=self._ids[start : start + PIECE]).order_by("-id"):
                row.version = self.versions[row.version_id]
                row.registered_model = row.version.registered_model
                yield row


class SmallPage(LogPage):
    """A page whose rows are in memory."""

    def __init__(self, rows: Sequence[Prediction], *, cursor: uuid.UUID | None = None) -> None:
        super().__init__(
            [(row.pk, row.version_id, row.probability is not None, row.by_class is not None) for row in rows],
            cursor=cursor,
        )
        self._rows = rows

    @cached_property
    def versions(self) -> dict[int, ModelVersion]:
        return {row.version_id: row.version for row in self._rows}

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self._rows)


def page(model: RegisteredModel, query: LogQuery) -> LogPage:
    """Returns a page of a model's log."""
    rows = Prediction.objects.filter(registered_model=model)
    if query.since is not None:
        rows = rows.filter(id__gte=lowest_at(query.since))
    if query.until is not None:
        rows = rows.filter(id__lt=lowest_at(query.until))
    if query.version is not None:
        rows = rows.filter(version_id__in=model.versions.filter(number=query.version).values_list("pk")[:1])
    if query.key is not None:
        if "\x00" in query.key:
            return SmallPage([])
        rows = rows.filter(key=query.key)
    if query.batch is not None:
        rows = of_batch(rows, query.batch)
    if query.before is not None:
        rows = rows.filter(id__lt=query.before)
    rows = rows.order_by("-id")
    if query.limit <= PIECE:
        shown = list(rows.prefetch_related(*sharing_versions("version"))[: query.limit + 1])
        more, shown = len(shown) > query.limit, shown[: query.limit]
        for row in shown:
            row.registered_model = model
        return SmallPage(shown, cursor=shown[-1].pk if more else None)
    return LogPage.of(rows, query.limit)


def of_batch(rows: QuerySet[Prediction, Prediction], batch_id: int) -> QuerySet[Prediction, Prediction]:
    """Returns the rows that a batch logged. No index has the batch: its times tell the range of the ids."""
    batch = Batch.objects.only("started_at", "finished_at").filter(pk=batch_id).first()
    if batch is None or batch.started_at is None:
        return rows.none()
    rows = rows.filter(batch_id=batch_id, id__gte=lowest_at(batch.started_at - CLOCKS_APART))
    return (
        rows if batch.finished_at is None else rows.filter(id__lt=lowest_at(batch.finished_at + CLOCKS_APART))
    )


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
    rows = Outcome.objects.filter(registered_model=model).prefetch_related("client")
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
