"""Records outcomes: the actual values of predictions, known later.

One transaction records all rows of a request or none, by a handful of statements at any length. Transactions
that write outcomes of one model run one after another, so repeats and corrections are counted correctly.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from core.uuid7 import LAST, lowest_at
from predictions.models import Lock, Outcome
from predictions.outcomes import matching, parsing
from predictions.outcomes.parsing import OutcomeRow, OutcomeRows
from training import providers
from training.models import ModelVersion, RegisteredModel
from training.runs.uploads import declared_schema
from vigia_ml.schema import Column, DatasetSchema, Fault, InvalidRows
from vigia_ml.schema.faults import REPORTED_FAULTS, echo

HISTORY: Final = 20
MILLISECOND: Final = dt.timedelta(milliseconds=1)  # the resolution of ids


@dataclass(slots=True)
class Recorded:
    """Counts of a request's rows: `received` counts all, and each row is in one of the next four.

    recorded : first outcomes of their prediction. corrected : outcomes that replaced another value.
    repeated : outcomes that were known already, so nothing was written. waiting : outcomes whose key has no
    prediction yet. ambiguous : rows with a warning; `warnings` lists at most `REPORTED_FAULTS` of them.
    """

    received: int = 0
    recorded: int = 0
    corrected: int = 0
    repeated: int = 0
    waiting: int = 0
    ambiguous: int = 0
    warnings: list[dict[str, Any]] = field(default_factory=list)

    def warn(self, outcome: OutcomeRow, code: str, message: str) -> None:
        """Adds a warning: the row was recorded, but perhaps for another prediction than the client meant."""
        self.ambiguous += 1
        if len(self.warnings) < REPORTED_FAULTS:
            warning = {"row": outcome.row, "field": "key", "code": code, "message": message}
            self.warnings.append(warning | {"value": outcome.key})


def record(model: RegisteredModel, rows: OutcomeRows, *, by: User | None) -> Recorded:
    """Writes the outcomes of one request, all of them or none.

    Raises
    ------
    InvalidRows : holds every fault of every row. UnsupportedForModel : the model does not answer rows.
    """
    providers.require_rows(model, "outcomes")
    outcomes = rows.good
    with transaction.atomic():
        Lock.OUTCOMES.take(model.pk)
        matching.join(model.pk, [each.key for each in outcomes if each.key is not None])
        predictions = _predictions(model, outcomes)
        actuals = _checked_actuals(model, rows, predictions)
        known = _KnownOutcomes.of(model, predictions, outcomes)
        now = timezone.now()
        counts, new = Recorded(received=len(outcomes)), []
        for each, actual in zip(outcomes, actuals, strict=True):
            logged = predictions.get(each)
            subject = (None, each.key) if logged is None else (logged.prediction_id, None)
            if known.repeats(subject, each, actual):
                counts.repeated += 1
                continue
            if each.key is not None:
                _warn_if_ambiguous(counts, each, predictions)
            if logged is None:
                counts.waiting += 1
            elif subject in known.current:
                counts.corrected += 1
            else:
                counts.recorded += 1
            observed = each.observed_at or now  # equal to received_at: `matching` reads "no time" from that
            known.add(subject, each.key, actual, observed)
            new.append(
                Outcome(
                    registered_model=model,
                    prediction_id=subject[0],
                    key=each.key,
                    actual=actual,
                    observed_at=observed,
                    client=by,
                    received_at=now,
                )
            )
        # Ids follow the rows' order, so the later of two outcomes of one prediction is the current one.
        Outcome.objects.bulk_create(new)
    return counts


def of(prediction_id: uuid.UUID) -> dict[str, Any] | None:
    """Returns a prediction's current outcome, the number of corrections and the last `HISTORY` outcomes,
    newest first; None without outcomes."""
    rows = list(Outcome.objects.filter(prediction_id=prediction_id).order_by("-id")[:HISTORY])
    if not rows:
        return None
    count = len(rows)
    if count == HISTORY:
        count = Outcome.objects.filter(prediction_id=prediction_id).count()
    history = [
        {"actual": row.actual, "observed_at": row.observed_at, "received_at": row.received_at} for row in rows
    ]
    current = {name: history[0][name] for name in ("actual", "observed_at")}
    return current | {"corrections": count - 1, "history": history}


# -- the predictions of the outcomes -------------------------------------------------------------------


class _LoggedPrediction(NamedTuple):
    prediction_id: uuid.UUID
    version_id: int


@dataclass(slots=True)
class _Predictions:
    """The logged predictions that a request names, by id or by (client key, first id that is too new).

    repeated_keys : keys of several predictions.
    """

    logged: dict[uuid.UUID | tuple[str, uuid.UUID], _LoggedPrediction] = field(default_factory=dict)
    repeated_keys: set[str] = field(default_factory=set)

    def get(self, outcome: OutcomeRow) -> _LoggedPrediction | None:
        return self.logged.get(outcome.prediction or _key_and_bound(outcome))


def _key_and_bound(outcome: OutcomeRow) -> tuple[str, uuid.UUID]:
    """Returns (key, first id that is too new): a prediction precedes the observation of its outcome."""
    assert outcome.key is not None
    if outcome.observed_at is None:
        return outcome.key, LAST
    return outcome.key, lowest_at(outcome.observed_at + MILLISECOND)


def _warn_if_ambiguous(counts: Recorded, outcome: OutcomeRow, predictions: _Predictions) -> None:
    if outcome.observed_at is None and outcome.key in predictions.repeated_keys:
        message = (
            "several predictions have this key; the newest one gets the outcome; "
            "send observed_at, or the id of the prediction"
        )
        counts.warn(outcome, "several_predictions", message)
    elif outcome.observed_at is not None and predictions.get(outcome) is None:
        message = (
            "no prediction with this key was made before observed_at; the outcome waits for one, "
            "and a later prediction does not get it"
        )
        counts.warn(outcome, "no_earlier_prediction", message)


def _predictions(model: RegisteredModel, outcomes: Sequence[OutcomeRow]) -> _Predictions:
    """Returns the predictions of all rows by two statements: one index probe for each id and key.

    A key names the newest prediction; with `observed_at`, the newest one made until then.
    """
    predictions = _Predictions()
    ids = list({each.prediction for each in outcomes if each.prediction is not None})
    keys = list({_key_and_bound(each) for each in outcomes if each.key is not None})
    with connection.cursor() as cursor:
        if ids:
            cursor.execute(
                # LIMIT makes it one index probe for each id; without it the planner reads the log.
                "SELECT log.id, log.version_id FROM unnest(%s::uuid[]) AS named (id), LATERAL ("
                "SELECT id, version_id, registered_model_id FROM predictions_prediction "
                "WHERE id = named.id LIMIT 1) AS log WHERE log.registered_model_id = %s",
                [ids, model.pk],
            )
            predictions.logged |= {row[0]: _LoggedPrediction(*row) for row in cursor.fetchall()}
        if keys:
            cursor.execute(
                "SELECT named.key, named.before, newest.id, newest.version_id "
                "FROM unnest(%s::text[], %s::uuid[]) AS named (key, before), LATERAL ("
                "SELECT log.id, log.version_id FROM predictions_prediction log "
                "WHERE log.registered_model_id = %s AND log.key = named.key AND log.id < named.before "
                "ORDER BY log.id DESC LIMIT 2"  # a second row shows that the key is ambiguous
                ") AS newest ORDER BY newest.id DESC",
                [[key for key, _ in keys], [before for _, before in keys], model.pk],
            )
            for key, before, *row in cursor.fetchall():
                if (key, before) in predictions.logged:
                    predictions.repeated_keys.add(key)
                else:
                    predictions.logged[key, before] = _LoggedPrediction(*row)
    return predictions


def _checked_actuals(model: RegisteredModel, rows: OutcomeRows, predictions: _Predictions) -> list[Any]:
    """Returns the actual values as the target column reads them.

    The version that made the prediction has the column; for outcomes that wait, the active version has it.
    """
    targets = _targets(model, rows, predictions)
    actuals: list[Any] = []
    faults = list(rows.faults)
    bad = rows.bad
    for each in rows.good:
        logged = predictions.get(each)
        if logged is None and each.prediction is not None:
            message = f"no prediction of {model.name} has this id"
            fault = Fault(
                "prediction", "unknown_prediction", message, echo(str(each.prediction)), has_value=True
            )
        else:
            actual = parsing.read_actual(targets[logged.version_id if logged else None], each)
            if not isinstance(actual, Fault):
                actuals.append(actual)
                continue
            fault = actual
        bad += 1
        faults.append(fault.at(row=each.row, line=each.line))
        if len(faults) > REPORTED_FAULTS:
            break
    if faults:
        faults.sort(key=lambda fault: fault.row or 0)
        raise InvalidRows(faults, rows=rows.rows, bad=bad, noun="outcomes")
    return actuals


def _targets(
    model: RegisteredModel, rows: OutcomeRows, predictions: _Predictions
) -> dict[int | None, Column]:
    """Returns the target columns by version id; None stands for outcomes that wait."""
    logged = [predictions.get(each) for each in rows.good]
    ids = {each.version_id for each in logged if each is not None}
    schemas = ModelVersion.objects.filter(pk__in=ids).values_list("pk", "schema")
    targets: dict[int | None, Column] = {pk: DatasetSchema.from_json(schema).target for pk, schema in schemas}
    if any(each is None and row.prediction is None for each, row in zip(logged, rows.good, strict=True)):
        active = model.active_version
        targets[None] = (declared_schema(model) if active is None else active.dataset_schema).target
    return targets


# -- outcomes that are known already -------------------------------------------------------------------

_Subject = tuple[uuid.UUID | None, str | None]
"""The subject of an outcome: a prediction's id, or the key under which the outcome waits."""


@dataclass(slots=True)
class _KnownOutcomes:
    """The recorded outcomes of the subjects that a request names.

    rows : (subject, actual as text, observed_at). An outcome under a key is also a row of the key: the same
        outcome sent again is a repeat, even if the key has a newer prediction meanwhile.
    current : subject -> actual of its current outcome.
    """

    rows: set[tuple[_Subject, str, dt.datetime]] = field(default_factory=set)
    current: dict[_Subject, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: RegisteredModel, predictions: _Predictions, outcomes: Sequence[OutcomeRow]
    ) -> _KnownOutcomes:
        ids = {logged.prediction_id for each in outcomes if (logged := predictions.get(each)) is not None}
        keys = {each.key for each in outcomes if each.key is not None}
        known = cls()
        rows = Outcome.objects.order_by("id").values_list("prediction_id", "key", "actual", "observed_at")
        for prediction_id, _, actual, observed_at in rows.filter(prediction_id__in=ids):
            known.add((prediction_id, None), None, actual, observed_at)
        for prediction_id, key, actual, observed_at in rows.filter(registered_model=model, key__in=keys):
            if prediction_id is None:
                known.add((None, key), key, actual, observed_at)
            else:
                known.rows.add(((None, key), _as_text(actual), observed_at))
        return known

    def add(self, subject: _Subject, key: str | None, actual: Any, observed_at: dt.datetime) -> None:
        text = _as_text(actual)
        self.current[subject] = text
        self.rows |= {(each, text, observed_at) for each in _subjects(subject, key)}

    def repeats(self, subject: _Subject, outcome: OutcomeRow, actual: Any) -> bool:
        """Returns whether the outcome is recorded already; without `observed_at`, whether it is current."""
        text = _as_text(actual)
        if outcome.observed_at is None:
            return self.current.get(subject) == text
        return any((each, text, outcome.observed_at) in self.rows for each in _subjects(subject, outcome.key))


def _subjects(subject: _Subject, key: str | None) -> set[_Subject]:
    return {subject} if key is None else {subject, (None, key)}


def _as_text(actual: Any) -> str:
    """Returns an actual value as text that a round trip through PostgreSQL keeps: 1e22 returns as an int."""
    is_number = isinstance(actual, (int, float)) and not isinstance(actual, bool)
    return repr(float(actual)) if is_number else json.dumps(actual)
