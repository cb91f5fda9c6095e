"""Replay jobs: a worker reads a window of the log in pieces and predicts it with a candidate.

One short statement reads each piece, so a replay holds no transaction open and never touches the fence. A
replay that is claimed again after a crash starts over: it writes its own row only.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import msgspec
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from core.uuid7 import EPOCH, lowest_at
from predictions.log.recent_counts import CAP, Count
from predictions.models import Prediction, Replay
from predictions.outcomes import labelled_rows
from predictions.outcomes.parsing import times_in
from predictions.replays.accumulator import ReplayAccumulator
from predictions.replays.rescoring import Candidate, Reading
from predictions.replays.summary import Logged
from training import artifacts, providers
from training.jobs.leases import Lease
from training.models import ModelVersion, RegisteredModel
from vigia_ml.schema import DatasetSchema, Fault, InvalidRows

CHUNK: Final = 10_000
USUAL_WINDOW: Final = dt.timedelta(days=7)

# JSON columns are fetched as text, so that a piece is decoded at once. ORDER BY has to name the table: `id`
# alone means the text column, which has no index, and every piece would sort the rest of the window.
_PIECE: Final = """
    SELECT log.id::text, log.version_id, log.inputs::text, log.prediction::text, log.probability,
        log.probabilities::text
    FROM predictions_prediction log
    WHERE log.registered_model_id = %s AND log.id > %s AND log.id < %s ORDER BY log.id LIMIT %s
"""
_Row = tuple[str, int, str, str, float | None, str | None]


def window(parameters: Any) -> tuple[dt.datetime, dt.datetime]:
    """Returns ``since`` (default: a week before ``until``) and ``until`` (default: now).

    Raises
    ------
    InvalidRows : a value is not a time, or the window is empty.
    """
    if not isinstance(parameters, dict):
        raise InvalidRows.single(None, "not_an_object", 'send an object {"since": …, "until": …}')
    times, faults = times_in(parameters, "a replay")
    now = timezone.now()
    until = min(times.get("until", now), now)
    since = times.get("since", max(until, EPOCH + USUAL_WINDOW) - USUAL_WINDOW)
    if not faults and since >= until:
        faults.append(Fault("since", "out_of_bounds", "since must be before until, and in the past"))
    if faults:
        raise InvalidRows(faults, message="the request is invalid")
    return since, until


def request(version: ModelVersion, since: dt.datetime, until: dt.datetime, *, by: User | None) -> Replay:
    """Creates a queued replay. The caller enqueues it after the commit.

    Raises
    ------
    UnsupportedForModel : the model does not answer rows.
    Archived, ArtifactPruned : the version cannot answer.
    """
    providers.require_rows(version.registered_model, "replays")
    artifacts.check_kept(version)
    return Replay.objects.create(
        registered_model=version.registered_model,
        version=version,
        since=since,
        until=until,
        requested_by=by,
        stage="queued",
    )


def rows_in(model: RegisteredModel, since: dt.datetime, until: dt.datetime) -> Count:
    """Counts the rows of a window, up to `CAP`."""
    rows = Prediction.objects.filter(
        registered_model=model, id__gte=lowest_at(since), id__lt=lowest_at(until)
    )
    counted = rows.order_by().values("pk")[: CAP + 1].count()
    return Count(min(counted, CAP), counted > CAP)


def replay(lease: Lease) -> None:
    """Executes a claimed replay; see `training.jobs.leases.Work`."""
    row = Replay.objects.select_related("version__registered_model").get(pk=lease.job_id)
    low, high = lowest_at(row.since), lowest_at(row.until)
    lease.report("loading the version", 1, rows=0)
    work = _Work(row.version, ReplayAccumulator(_task(row.version)))
    first, last = _ends(row.registered_model_id, low, high)
    for chunk in _pieces(row.registered_model_id, low, high):
        work.take(chunk)
        done = (uuid.UUID(chunk[-1][0]).int - first) / max(1, last - first)
        rows = work.accumulator.rows
        lease.report(f"scoring: {rows:,} rows", 2 + int(96 * min(1.0, max(0.0, done))), rows=rows)
    lease.report("summarising", 99, rows=work.accumulator.rows)
    result = work.accumulator.summary().to_json()
    lease.end(Replay.Status.SUCCEEDED, result=result, rows=work.accumulator.rows)


def _task(version: ModelVersion) -> str:
    """Returns the task of the version; today's declaration may have another task."""
    if version.threshold is not None:
        return "binary"
    return "regression" if "rmse" in version.metrics else "multiclass"


def _ends(model_id: int, low: uuid.UUID, high: uuid.UUID) -> tuple[int, int]:
    """Returns the first and the last id of the window as numbers, which measure the progress in time."""
    ids = Prediction.objects.filter(registered_model_id=model_id, id__gte=low, id__lt=high)
    ids_only = ids.values_list("id", flat=True)
    first, last = ids_only.order_by("id").first(), ids_only.order_by("-id").first()
    return (first.int, last.int) if first is not None and last is not None else (0, 0)


def _pieces(model_id: int, low: uuid.UUID, high: uuid.UUID) -> Iterator[list[_Row]]:
    after = uuid.UUID(int=max(low.int - 1, 0))
    while True:
        with connection.cursor() as cursor:
            cursor.execute(_PIECE, [model_id, str(after), str(high), CHUNK])
            rows = cursor.fetchall()
        if not rows:
            return
        yield rows
        if len(rows) < CHUNK:
            return
        after = uuid.UUID(rows[-1][0])


class _Work:
    """One attempt at a replay: the candidate, and the schemas of the versions that logged."""

    def __init__(self, version: ModelVersion, accumulator: ReplayAccumulator) -> None:
        self.accumulator = accumulator
        self._model_id = version.registered_model_id
        engine = artifacts.load(version)
        self._candidate = Candidate(engine, version.dataset_schema, version.schema_sha256, version.threshold)
        self._reading = cache(self._read_schema)

    def take(self, rows: list[_Row]) -> None:
        """Predicts one piece and adds it to the accumulator."""
        actuals = self._actuals(rows)
        # Rows close in time nearly always have the same version.
        by_version = sorted(rows, key=itemgetter(1)) if len({row[1] for row in rows}) > 1 else rows
        for version_id, group in groupby(by_version, key=itemgetter(1)):
            self._take_version(version_id, list(group), actuals)

    def _take_version(self, version_id: int, rows: list[_Row], actuals: dict[str, Any]) -> None:
        number, names, reading, classes = self._reading(version_id)
        ids, _, inputs, predictions, probabilities, arrays = zip(*rows, strict=True)
        cells = _decoded(inputs)
        answers = self._candidate.answers(reading, cells)
        by_class = _decoded([array or "null" for array in arrays]) if any(arrays) else ()
        logged = Logged(
            number, ids, names, cells, _decoded(predictions), probabilities, actuals, by_class, classes
        )
        self.accumulator.add(logged, answers)

    def _read_schema(self, version_id: int) -> tuple[int, tuple[str, ...], Reading, tuple[Any, ...]]:
        """Returns the number, the columns, the reader of the rows, and the classes of a logging version."""
        row = ModelVersion.objects.only("number", "schema", "schema_sha256", "classes").get(pk=version_id)
        schema: DatasetSchema = row.dataset_schema
        reading = self._candidate.rows_of(schema, row.schema_sha256)
        return row.number, schema.names, reading, row.known_classes or ()

    def _actuals(self, rows: list[_Row]) -> dict[str, Any]:
        """Returns the outcomes of a piece by prediction id."""
        low, high = uuid.UUID(rows[0][0]), uuid.UUID(int=uuid.UUID(rows[-1][0]).int + 1)
        actuals: dict[str, Any] = {}
        for page in labelled_rows.pages(self._model_id, low, high, inputs=False):
            ids = [each.prediction_id for each in page]
            actuals.update(zip(ids, _decoded([each.actual for each in page]), strict=True))
        return actuals


def _decoded(texts: Sequence[str]) -> list[Any]:
    """Returns JSON values, decoded as one array."""
    values: list[Any] = msgspec.json.decode(f"[{','.join(texts)}]")
    return values
