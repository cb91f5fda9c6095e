"""The one path every answer takes: read → predict → log → answer.

Whatever the route (API, tutorial routes, later protocols) and whoever calls (a view, or the web worker's fast
lane), rows are read by `read_*`, answered by `prepare`, and sent only after their entry was committed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import msgspec
from django.conf import settings
from uuid_utils import uuid7

from predictions import log as prediction_log
from predictions.errors import KeyReused, PredictionFailed, TooManyRows
from predictions.wire import Claim
from training.schema import Fault, Instance, InvalidRows
from training.schema.compiled import Rows
from training.schema.decoding import decode_json
from training.schema.faults import REPORTED_FAULTS
from training.services.serving import Served

if TYPE_CHECKING:
    from training.engines import MatrixEngine, Scores

logger = logging.getLogger(__name__)
encode = msgspec.json.Encoder().encode
INFINITY: Final = float("inf")


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


# -- reading -------------------------------------------------------------------------------------------


def read_body(served: Served, body: bytes) -> Rows:
    """The rows of a JSON body, all valid.

    The compiled decoder accepts what it recognises; only what it declines goes the slow way, which knows
    every spelling and collects every fault.

    Raises
    ------
    InvalidRows : with every fault of every row. TooManyRows : see settings.PREDICT_MAX_ROWS.
    Malformed : it is no JSON.
    """
    found = served.compiled.decode(body, settings.PREDICT_MAX_ROWS)
    if found is not None:
        return found
    data = decode_json(body)
    rows = read_json(served, data)
    served.compiled.learn(data[0] if isinstance(data, list) else data)
    return rows


def read_json(served: Served, data: object) -> Rows:
    """One decoded object or an array of them, all valid; see `read_body`."""
    if isinstance(data, dict):
        data = [data]
    if not isinstance(data, list):
        fault = Fault(None, "not_an_object", "send a JSON object or an array of objects")
        raise InvalidRows([fault], message=fault.message)
    if not data:
        raise InvalidRows([Fault(None, "empty_array", "the array is empty")], message="the array is empty")
    return read_rows(served, data)


def read_rows(served: Served, rows: Sequence[object], *, text: bool = False) -> Rows:
    """Rows of JSON values (or of text cells, from a form), all valid; see `read_body`."""
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
    return _as_rows(served, good)


def read_csv(
    served: Served, stream: BinaryIO, *, delimiter: str | None = None, decimal: str | None = None
) -> Rows:
    """The rows of a CSV with header, all valid; see `read_body`."""
    from training.schema.reading import CsvReader

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
    return _as_rows(served, good)


def _as_rows(served: Served, instances: Sequence[Instance]) -> Rows:
    return served.compiled.from_values([each.values for each in instances], [each.key for each in instances])


# -- answering -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepared:
    """Answers that nobody has seen yet: they may go out once their entry is committed.

    ids : UUIDv7s, ascending, so that a request's rows keep their order in the log.
    """

    served: Served
    caller: Caller
    rows: Rows
    ids: list[str]
    values: list[Any]
    probabilities: list[float] | None
    warnings: list[list[dict[str, str]]]

    def as_dict(self) -> dict[str, Any]:
        """The answer as it goes out."""
        if self.probabilities is None:
            given = [
                {"id": identifier, "prediction": value, "warnings": warnings}
                for identifier, value, warnings in zip(self.ids, self.values, self.warnings, strict=True)
            ]
        else:
            given = [
                {"id": identifier, "prediction": value, "probability": probability, "warnings": warnings}
                for identifier, value, probability, warnings in zip(
                    self.ids, self.values, self.probabilities, self.warnings, strict=True
                )
            ]
        return {"model": self.served.model_name, "version": self.served.number, "predictions": given}

    def entry(self, generation: int, *, done: prediction_log.Done | None = None) -> prediction_log.Entry:
        """What has to be committed before it goes out.

        Parameters
        ----------
        generation : read before anything the answer was made from; see `training.services.snapshot`.
        """
        caller, served = self.caller, self.served
        claim = None
        if caller.idempotency_key is not None and caller.client_id is not None:
            answer = encode(self.as_dict()).decode()
            hours = settings.IDEMPOTENCY_HOURS
            claim = Claim(caller.client_id, caller.idempotency_key, caller.request_sha256, answer, hours)
        model, version = b"%d" % served.model_id, b"%d" % served.version_id
        client = None if caller.client_id is None else b"%d" % caller.client_id
        request = caller.request_id.encode()
        probabilities: Sequence[float | None] = self.probabilities or [None] * len(self.ids)
        rows = [
            (
                identifier.encode(),
                model,
                version,
                client,
                None if key is None else key.encode(),
                inputs,
                encode(value),
                None if probability is None else encode(probability),
                encode(warnings) if warnings else b"[]",
                request,
            )
            for identifier, key, inputs, value, probability, warnings in zip(
                self.ids, self.rows.keys, self.rows.inputs(), self.values, probabilities, self.warnings,
                strict=True,
            )
        ]  # fmt: skip
        return prediction_log.Entry(rows, generation, claim=claim, done=done)


def prepare(served: Served, rows: Rows, caller: Caller) -> Prepared:
    """The model's answers to valid rows.

    Raises
    ------
    PredictionFailed, InvalidRows : the model has no answer to these values.
    """
    values, probabilities = _outputs(served, rows)
    ids = [str(uuid7())] if len(rows) == 1 else sorted(str(uuid7()) for _ in range(len(rows)))
    return Prepared(served, caller, rows, ids, values, probabilities, rows.warnings())


def answer(served: Served, rows: Rows, caller: Caller, generation: int) -> Answer:
    """Predicts, logs, and only then answers.

    Parameters
    ----------
    generation : see `predictions.log.Entry`.

    Raises
    ------
    predictions.log.Stale : a version, key or right changed meanwhile; ask again.
    LogUnavailable : nothing could be logged, so nothing is answered.
    KeyReused : another request took the idempotency key meanwhile, with another body.
    PredictionFailed, InvalidRows : the model has no answer to these values.
    """
    prepared = prepare(served, rows, caller)
    try:
        prediction_log.append(prepared.entry(generation))
    except prediction_log.AlreadyAnswered:
        earlier = replay(caller)
        if earlier is None:  # it expired between two statements
            raise prediction_log.Stale from None
        return earlier
    return Answer(prepared.as_dict())


def _outputs(served: Served, rows: Rows) -> tuple[list[Any], list[float] | None]:
    """(predictions, probabilities or None): the decision is made here, by the version's threshold."""
    scores = _scores(served, rows)
    if scores.probabilities is None:
        values = list(scores.values)
        _must_be_finite(values)
        return values, None
    if served.threshold is not None:
        negative, positive = scores.classes
        threshold = served.threshold
        probabilities = [row[1] for row in scores.probabilities]
        _must_be_finite(probabilities)
        return [positive if each >= threshold else negative for each in probabilities], probabilities
    probabilities = [max(row) for row in scores.probabilities]
    _must_be_finite(probabilities)
    return list(scores.values), probabilities


def _scores(served: Served, rows: Rows) -> Scores:
    engine = served.engine
    try:
        if engine.takes_matrix:
            return cast("MatrixEngine", engine).score(rows.matrix()).plain()
        names = served.schema.names
        return engine.predict([dict(zip(names, row, strict=True)) for row in rows.values])
    except (ValueError, ArithmeticError) as error:
        logger.exception("%s %s could not answer", served.model_name, served.number)
        raise PredictionFailed(f"the model has no answer to these values: {error}") from error


def _must_be_finite(numbers: Sequence[float]) -> None:
    """Raises `InvalidRows` that names the rows with no finite answer."""
    if all(-INFINITY < number < INFINITY for number in numbers):  # NaN is not
        return
    said = "the model's answer is not finite"
    faults = [
        Fault(None, "no_finite_answer", said, row=position)
        for position, number in enumerate(numbers)
        if not -INFINITY < number < INFINITY
    ]
    raise InvalidRows(faults, rows=len(numbers), bad=len(faults))
