"""The one path every answer takes: read → predict → log → answer.

Whatever the route (API, tutorial routes, later protocols), it ends in `answer`.
"""

from __future__ import annotations

import json
import logging
import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from django.conf import settings

from predictions import log as prediction_log
from predictions.errors import KeyReused, PredictionFailed, TooManyRows
from predictions.identifiers import new_ids
from training.engines import Scores
from training.schema import Fault, Instance, InvalidRows
from training.schema.faults import REPORTED_FAULTS
from training.schema.reading import CsvReader
from training.services.serving import Served

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and under which request id and idempotency key."""

    client_id: int | None
    request_id: str
    idempotency_key: str | None = None
    request_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered, as it goes out; `replayed` when it is the stored answer to an earlier request."""

    body: dict[str, Any]
    replayed: bool = False


def replay(caller: Caller) -> Answer | None:
    """The stored answer to this caller's idempotency key, or None.

    Raises
    ------
    KeyReused : the key stands for another request.
    """
    if caller.idempotency_key is None or caller.client_id is None:
        return None
    stored = prediction_log.stored_answer(caller.client_id, caller.idempotency_key)
    if stored is None:
        return None
    if stored.request_sha256 != caller.request_sha256:
        raise KeyReused
    return Answer(json.loads(stored.answer), replayed=True)


def read_json(served: Served, data: object) -> list[Instance]:
    """One decoded object or an array of them, all valid.

    Raises
    ------
    InvalidRows : with every fault of every row. TooManyRows : see settings.PREDICT_MAX_ROWS.
    """
    if isinstance(data, dict):
        data = [data]
    if not isinstance(data, list):
        fault = Fault(None, "not_an_object", "send a JSON object or an array of objects")
        raise InvalidRows([fault], message=fault.message)
    if not data:
        raise InvalidRows([Fault(None, "empty_array", "the array is empty")], message="the array is empty")
    return read_rows(served, data)


def read_rows(served: Served, rows: Sequence[object], *, text: bool = False) -> list[Instance]:
    """Rows of JSON values (or of text cells, from a form), all valid; see `read_json`."""
    if len(rows) > settings.PREDICT_MAX_ROWS:
        raise TooManyRows(settings.PREDICT_MAX_ROWS)
    good: list[Instance] = []
    faults: list[Fault] = []
    bad = 0
    for position, raw in enumerate(rows):
        found = served.schema.read(raw, text=text)
        if isinstance(found, Instance):
            good.append(found)
        else:
            bad += 1
            faults.extend(fault.at(row=position) for fault in found)
            if len(faults) > REPORTED_FAULTS:
                break  # more would not be reported, and looking for them is work a client can ask for cheaply
    if faults:
        raise InvalidRows(faults, rows=len(rows), bad=bad)
    return good


def read_csv(
    served: Served, stream: BinaryIO, *, delimiter: str | None = None, decimal: str | None = None
) -> list[Instance]:
    """The rows of a CSV with header, all valid; see `read_json`."""
    reader = CsvReader(stream, served.schema, with_target=False, delimiter=delimiter, decimal=decimal)
    good: list[Instance] = []
    faults: list[Fault] = []
    rows = bad = 0
    for batch in reader.batches(settings.PREDICT_MAX_ROWS + 1):
        rows += batch.seen_rows
        if rows > settings.PREDICT_MAX_ROWS:
            raise TooManyRows(settings.PREDICT_MAX_ROWS)
        bad += len(batch.refused)
        faults.extend(batch.faults[: REPORTED_FAULTS + 1])
        good.extend(batch.instances(served.schema))
    if faults:
        raise InvalidRows(faults, rows=rows, bad=bad, what="rows")
    if not good:
        message = "the CSV holds a header and no rows"
        raise InvalidRows([Fault(None, "empty_file", message)], message=message)
    return good


def answer(
    served: Served, instances: Sequence[Instance], caller: Caller, *, if_active: bool = False
) -> Answer:
    """Predicts, logs, and only then answers.

    Parameters
    ----------
    if_active : the caller asked for the active version, whichever it is, and `served` was it a moment ago.

    Raises
    ------
    predictions.log.VersionSwitched : it is not any more; ask the new one.
    LogUnavailable : nothing could be logged, so nothing is answered.
    KeyReused : another request took the idempotency key meanwhile, with another body.
    PredictionFailed, InvalidRows : the model has no answer to these values.
    """
    outputs = _outputs(served, _scores(served, instances))
    ids = new_ids(len(instances))
    rows, predictions = [], []
    for identifier, instance, (value, probability) in zip(ids, instances, outputs, strict=True):
        warnings = served.schema.warnings(instance.values)
        rows.append(_row(served, caller, identifier, instance, value, probability, warnings))
        given: dict[str, Any] = {"id": str(identifier), "prediction": value}
        if probability is not None:
            given["probability"] = probability
        predictions.append(given | {"warnings": warnings})
    body = {"model": served.model_name, "version": served.number, "predictions": predictions}
    claim = None
    if caller.idempotency_key is not None and caller.client_id is not None:
        claim = prediction_log.Claim(
            caller.client_id, caller.idempotency_key, caller.request_sha256, json.dumps(body)
        )
    try:
        prediction_log.append(rows, claim, if_active=if_active)
    except prediction_log.AlreadyAnswered:
        earlier = replay(caller)
        if earlier is None:  # it expired between two statements
            return answer(served, instances, caller, if_active=if_active)
        return earlier
    return Answer(body)


def _scores(served: Served, instances: Sequence[Instance]) -> Scores:
    try:
        return served.engine.predict([instance.values for instance in instances])
    except (ValueError, ArithmeticError) as error:
        logger.exception("%s %s could not answer", served.model_name, served.number)
        raise PredictionFailed(f"the model has no answer to these values: {error}") from error


def _outputs(served: Served, scores: Scores) -> list[tuple[Any, float | None]]:
    """(prediction, probability) per row: the decision is made here, by the version's threshold."""
    found: list[tuple[Any, float | None]] = []
    if scores.probabilities is None:
        faults = _not_finite(scores.values)
        found.extend((value, None) for value in scores.values)
    elif served.threshold is not None:
        negative, positive = scores.classes
        threshold = served.threshold
        faults = _not_finite(row[1] for row in scores.probabilities)
        found.extend((positive if row[1] >= threshold else negative, row[1]) for row in scores.probabilities)
    else:
        faults = _not_finite(max(row) for row in scores.probabilities)
        found.extend(zip(scores.values, (max(row) for row in scores.probabilities), strict=True))
    if faults:
        raise InvalidRows(faults, rows=len(found), bad=len(faults))
    return found


def _not_finite(numbers: Iterable[float]) -> list[Fault]:
    said = "the model's answer is not finite"
    return [
        Fault(None, "no_finite_answer", said, row=position)
        for position, number in enumerate(numbers)
        if not math.isfinite(number)
    ]


def _row(
    served: Served,
    caller: Caller,
    identifier: uuid.UUID,
    instance: Instance,
    value: Any,
    probability: float | None,
    warnings: list[dict[str, str]],
) -> prediction_log.Row:
    return prediction_log.Row(
        id=identifier,
        model_id=served.model_id,
        version_id=served.version_id,
        client_id=caller.client_id,
        key=instance.key,
        inputs=instance.values,
        prediction=value,
        probability=probability,
        warnings=warnings,
        request_id=caller.request_id,
    )
