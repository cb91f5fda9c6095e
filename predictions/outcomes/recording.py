"""Recording outcomes: what was true of a prediction, learned later.

A request is recorded whole or not at all, by a handful of statements whatever its length. Those that write
outcomes of one model do it one after another, so that repeats and corrections are counted rightly.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from core.uuid7 import LAST, lowest_at
from predictions.models import Outcome
from predictions.outcomes import matching, parsing
from predictions.outcomes.parsing import Given, Rows
from training import providers
from training.models import ModelVersion, RegisteredModel
from training.runs.uploads import declared_schema
from vigia_ml.schema import Column, DatasetSchema, Fault, InvalidRows
from vigia_ml.schema.faults import REPORTED_FAULTS, echo

HISTORY: Final = 20
MILLISECOND: Final = dt.timedelta(milliseconds=1)  # ids tell time to it


@dataclass(slots=True)
class Recorded:
    """What became of a request's rows: each is counted once, but for `received`, which counts all.

    recorded : the first outcome of their prediction. corrected : another than the one that held.
    repeated : known already, so that nothing was written. waiting : their key has no prediction yet.
    ambiguous : rows that `warnings` names, though not more than `REPORTED_FAULTS` of them.
    """

    received: int = 0
    recorded: int = 0
    corrected: int = 0
    repeated: int = 0
    waiting: int = 0
    ambiguous: int = 0
    warnings: list[dict[str, Any]] = field(default_factory=list)

    def warn(self, outcome: Given, code: str, message: str) -> None:
        """Names a row that was recorded, and whose prediction may not be the one that was meant."""
        self.ambiguous += 1
        if len(self.warnings) < REPORTED_FAULTS:
            warning = {"row": outcome.row, "field": "key", "code": code, "message": message}
            self.warnings.append(warning | {"value": outcome.key})


def record(model: RegisteredModel, asked: Rows, *, by: User | None) -> Recorded:
    """Writes the outcomes of one request, all of them or none.

    Raises
    ------
    InvalidRows : with every fault of every row. UnsupportedForModel : not a model of rows.
    """
    providers.require_rows(model, "outcomes")
    given = asked.good
    with transaction.atomic():
        matching.lock(model.pk)
        matching.join(model.pk, [each.key for each in given if each.key is not None])
        versions = _predictions(model, given)
        actuals = _checked(model, asked, versions)
        known = _Known.of(model, versions, given)
        now = timezone.now()
        counts, rows = Recorded(received=len(given)), []
        for each, actual in zip(given, actuals, strict=True):
            found = versions.get(each)
            what = (None, each.key) if found is None else (found.prediction_id, None)
            if known.repeats(what, each, actual):
                counts.repeated += 1
                continue
            if each.key is not None:
                _warn_of_doubt(counts, each, versions)
            if found is None:
                counts.waiting += 1
            elif what in known.holding:
                counts.corrected += 1
            else:
                counts.recorded += 1
            observed = each.observed_at or now  # equal to received_at: `matching` reads "not given" from that
            known.add(what, each.key, actual, observed)
            rows.append((found.prediction_id if found else None, each.key, json.dumps(actual), observed))
        _insert(model, rows, by, now)
    return counts


def of(prediction_id: uuid.UUID) -> dict[str, Any] | None:
    """The outcome that holds for a prediction, how often it was corrected, and the last `HISTORY` that came,
    the newest first; None without any."""
    rows = list(Outcome.objects.filter(prediction_id=prediction_id).order_by("-id")[:HISTORY])
    if not rows:
        return None
    count = len(rows)
    if count == HISTORY:
        count = Outcome.objects.filter(prediction_id=prediction_id).count()
    history = [
        {"actual": row.actual, "observed_at": row.observed_at, "received_at": row.received_at} for row in rows
    ]
    holds = {name: history[0][name] for name in ("actual", "observed_at")}
    return holds | {"corrections": count - 1, "history": history}


def _insert(
    model: RegisteredModel,
    rows: Sequence[tuple[uuid.UUID | None, str | None, str, dt.datetime]],
    by: User | None,
    now: dt.datetime,
) -> None:
    """One statement, without a model's instance for each row. The rows get their ids in their order: of two
    for one prediction the later one holds."""
    if not rows:
        return
    statement = """
        INSERT INTO predictions_outcome
            (registered_model_id, prediction_id, key, actual, observed_at, client_id, received_at)
        SELECT %s, row.prediction_id, row.key, row.actual::jsonb, row.observed_at, %s, %s
        FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::timestamptz[])
             WITH ORDINALITY AS row (prediction_id, key, actual, observed_at, place)
        ORDER BY row.place
    """
    with connection.cursor() as cursor:
        columns = [list(column) for column in zip(*rows, strict=True)]
        cursor.execute(statement, [model.pk, by.pk if by else None, now, *columns])


# -- the predictions they are of -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    prediction_id: uuid.UUID
    version_id: int


@dataclass(slots=True)
class _Predictions:
    """The logged predictions a request names, by id and by the client's own key."""

    by_id: dict[uuid.UUID, _Found] = field(default_factory=dict)
    by_key: dict[tuple[str, uuid.UUID], _Found] = field(default_factory=dict)
    repeated_keys: set[str] = field(default_factory=set)

    def get(self, given: Given) -> _Found | None:
        if given.prediction is not None:
            return self.by_id.get(given.prediction)
        return self.by_key.get(_asked_for(given))


def _asked_for(given: Given) -> tuple[str, uuid.UUID]:
    """(key, first id that is too new): a label belongs to a prediction made before it was observed."""
    assert given.key is not None
    if given.observed_at is None:
        return given.key, LAST
    return given.key, lowest_at(given.observed_at + MILLISECOND)


def _warn_of_doubt(counts: Recorded, given: Given, predictions: _Predictions) -> None:
    if given.observed_at is None and given.key in predictions.repeated_keys:
        message = (
            "several predictions have this key, and the newest one gets the outcome; "
            "send observed_at, or the id of the prediction"
        )
        counts.warn(given, "several_predictions", message)
    elif given.observed_at is not None and predictions.get(given) is None:
        message = (
            "no prediction with this key was made before observed_at, so the outcome waits; "
            "a later prediction does not get it"
        )
        counts.warn(given, "no_earlier_prediction", message)


def _predictions(model: RegisteredModel, given: Sequence[Given]) -> _Predictions:
    """The predictions of all rows, in two statements: one index probe for each id and key.

    A key means the newest prediction; with `observed_at` the newest one made until then.
    """
    found = _Predictions()
    ids = list({each.prediction for each in given if each.prediction is not None})
    keys = list({_asked_for(each) for each in given if each.key is not None})
    with connection.cursor() as cursor:
        if ids:
            cursor.execute(
                # LIMIT makes it a look into the index for each, where the planner would rather read the log.
                "SELECT log.id, log.version_id FROM unnest(%s::uuid[]) AS asked (id), LATERAL ("
                "SELECT id, version_id, registered_model_id FROM predictions_prediction "
                "WHERE id = asked.id LIMIT 1) AS log WHERE log.registered_model_id = %s",
                [ids, model.pk],
            )
            found.by_id = {row[0]: _Found(*row) for row in cursor.fetchall()}
        if keys:
            cursor.execute(
                "SELECT asked.key, asked.before, newest.id, newest.version_id "
                "FROM unnest(%s::text[], %s::uuid[]) AS asked (key, before), LATERAL ("
                "SELECT log.id, log.version_id FROM predictions_prediction log "
                "WHERE log.registered_model_id = %s AND log.key = asked.key AND log.id < asked.before "
                "ORDER BY log.id DESC LIMIT 2"  # the second one says that there are several
                ") AS newest ORDER BY newest.id DESC",
                [[key for key, _ in keys], [before for _, before in keys], model.pk],
            )
            for key, before, *row in cursor.fetchall():
                if (key, before) in found.by_key:
                    found.repeated_keys.add(key)
                else:
                    found.by_key[key, before] = _Found(*row)
    return found


def _checked(model: RegisteredModel, asked: Rows, versions: _Predictions) -> list[Any]:
    """The actual values as the target column has them.

    The column is that of the version that made the prediction; of what waits, of the active version.
    """
    columns = _Targets(model)
    columns.load({found.version_id for each in asked.good if (found := versions.get(each)) is not None})
    actuals: list[Any] = []
    faults = list(asked.faults)
    bad = asked.bad
    for each in asked.good:
        found = versions.get(each)
        if found is None and each.prediction is not None:
            said = f"no prediction of {model.name} has this id"
            fault = Fault(
                "prediction", "unknown_prediction", said, echo(str(each.prediction)), has_value=True
            )
        else:
            read = parsing.read_actual(columns.of(found.version_id if found else None), each)
            if not isinstance(read, Fault):
                actuals.append(read)
                continue
            fault = read
        bad += 1
        faults.append(fault.at(row=each.row, line=each.line))
        if len(faults) > REPORTED_FAULTS:
            break
    if faults:
        faults.sort(key=lambda fault: fault.row or 0)
        raise InvalidRows(faults, rows=asked.rows, bad=bad, what="outcomes")
    return actuals


class _Targets:
    """Target columns by version; None is what holds for an outcome that waits."""

    def __init__(self, model: RegisteredModel) -> None:
        self._model = model
        self._columns: dict[int | None, Column] = {}

    def load(self, version_ids: Iterable[int]) -> None:
        rows = ModelVersion.objects.filter(pk__in=list(version_ids)).values_list("pk", "schema")
        self._columns |= {pk: DatasetSchema.from_json(schema).target for pk, schema in rows}

    def of(self, version_id: int | None) -> Column:
        if version_id not in self._columns:  # only ever for None, and once
            active = self._model.active_version
            schema = active.dataset_schema if active is not None else declared_schema(self._model)
            self._columns[version_id] = schema.target
        return self._columns[version_id]


# -- what is known already -----------------------------------------------------------------------------

_What = tuple[uuid.UUID | None, str | None]
"""A prediction's id, or the key under which an outcome waits for one."""


@dataclass(slots=True)
class _Known:
    """The outcomes there are of what a request names.

    rows : (of what, actual as text, observed_at). holding : of what -> actual of the row that holds.
    keyed : (key, actual, observed_at) of all that came under the request's keys: who sends one of them again
        repeats it, even if the key has a newer prediction meanwhile.
    """

    rows: set[tuple[_What, str, dt.datetime]] = field(default_factory=set)
    holding: dict[_What, str] = field(default_factory=dict)
    keyed: set[tuple[str | None, str, dt.datetime]] = field(default_factory=set)

    @classmethod
    def of(cls, model: RegisteredModel, versions: _Predictions, given: Sequence[Given]) -> _Known:
        ids = {found.prediction_id for each in given if (found := versions.get(each)) is not None}
        keys = {each.key for each in given if each.key is not None}
        known = cls()
        columns = ("key", "actual", "observed_at")
        by_id = Outcome.objects.filter(prediction_id__in=ids).order_by("id")
        for prediction_id, _, actual, observed_at in by_id.values_list("prediction_id", *columns):
            known._add((prediction_id, None), _said(actual), observed_at)
        by_key = Outcome.objects.filter(registered_model=model, key__in=keys).order_by("id")
        for prediction_id, key, actual, observed_at in by_key.values_list("prediction_id", *columns):
            said = _said(actual)
            known.keyed.add((key, said, observed_at))
            if prediction_id is None:
                known._add((None, key), said, observed_at)
        return known

    def _add(self, what: _What, said: str, observed_at: dt.datetime) -> None:
        self.rows.add((what, said, observed_at))
        self.holding[what] = said

    def add(self, what: _What, key: str | None, actual: Any, observed_at: dt.datetime) -> None:
        """Another one, of this request."""
        said = _said(actual)
        self._add(what, said, observed_at)
        if key is not None:
            self.keyed.add((key, said, observed_at))

    def repeats(self, what: _What, given: Given, actual: Any) -> bool:
        """Whether it was said before; without a time of its own, whether it is what holds."""
        said = _said(actual)
        if given.observed_at is None:
            return self.holding.get(what) == said
        if given.key is not None and (given.key, said, given.observed_at) in self.keyed:
            return True
        return (what, said, given.observed_at) in self.rows


def _said(actual: Any) -> str:
    """An actual value as text, the same before and after PostgreSQL kept it: 1e22 comes back as an int."""
    is_number = isinstance(actual, (int, float)) and not isinstance(actual, bool)
    return repr(float(actual)) if is_number else json.dumps(actual)
