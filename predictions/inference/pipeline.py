"""The one path every answer takes: read → predict → log → answer.

Every route (API, tutorial routes) and every caller (a view, the fast path) reads rows with
`predictions.inference.reading`, answers them with `prepare`, and sends the answer only after its entry was
committed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import msgspec
from django.conf import settings

from core.metrics import counters
from core.uuid7 import log_ids
from predictions.errors import PredictionFailed
from predictions.log import writer as prediction_log
from predictions.log.connection import Claim
from training import idempotency
from training.idempotency import RetryKey
from training.serving.engine_cache import Served
from vigia_ml.engines.shape import checked
from vigia_ml.schema import Fault, InvalidRows
from vigia_ml.schema.row_decoder import Rows

if TYPE_CHECKING:
    from vigia_ml.engines import MatrixEngine, Scores

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
    stored = idempotency.stored_response(
        RetryKey(caller.client_id, caller.idempotency_key, caller.request_sha256)
    )
    return None if stored is None else Answer(json.loads(stored.body), replayed=True)


# -- answering -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepared:
    """Answers that nobody has seen yet: they may go out once their entry is committed.

    One element a row, as JSON: what goes into the log and what goes out are the same bytes.

    ids : UUIDv7s (without quotes), ascending, so that a request's rows keep their order in the log.
    probabilities : None for a regression.
    """

    served: Served
    caller: Caller
    rows: Rows
    ids: list[bytes]
    values: list[bytes]
    probabilities: list[bytes] | None
    warnings: list[bytes]

    def body(self) -> bytes:
        """The answer as it goes out, in JSON."""
        if self.probabilities is None:
            given = [
                b'{"id":"%s","prediction":%s,"warnings":%s}' % cells
                for cells in zip(self.ids, self.values, self.warnings, strict=True)
            ]
        else:
            given = [
                b'{"id":"%s","prediction":%s,"probability":%s,"warnings":%s}' % cells
                for cells in zip(self.ids, self.values, self.probabilities, self.warnings, strict=True)
            ]
        served = self.served
        head = b'{"model":"%s","version":%d,"predictions":[' % (served.model_name.encode(), served.number)
        return b"%s%s]}" % (head, b",".join(given))

    def as_dict(self) -> dict[str, Any]:
        """The same, decoded."""
        found: dict[str, Any] = msgspec.json.decode(self.body())
        return found

    def entry(self, generation: int, *, done: prediction_log.Done | None = None) -> prediction_log.Entry:
        """What has to be committed before it goes out.

        Parameters
        ----------
        generation : read before anything the answer was made from; see `training.serving.routing`.
        """
        caller, served = self.caller, self.served
        rows = zip(
            self.ids,
            repeat(b"%d" % served.model_id),
            repeat(b"%d" % served.version_id),
            repeat(None if caller.client_id is None else b"%d" % caller.client_id),
            [None if key is None else key.encode() for key in self.rows.keys],
            self.rows.inputs(),
            self.values,
            repeat(None) if self.probabilities is None else self.probabilities,
            self.warnings,
            repeat(caller.request_id.encode()),
            strict=False,  # what is repeated has no end
        )
        return prediction_log.Entry(list(rows), generation, claim=claim_of(caller, self.body), done=done)

    def count(self, route: str, seconds: float) -> None:
        """For the metrics, once it goes out; see `core.metrics.counters.answered`."""
        classes = self.probabilities is not None
        counters.answered(route, self.served, self.values, seconds, classes=classes)


class Committable(Protocol):
    """An answer that may go out once its entry is committed; `Prepared` is the one to rows."""

    @property
    def caller(self) -> Caller: ...

    def body(self) -> bytes: ...

    def as_dict(self) -> dict[str, Any]: ...

    def entry(self, generation: int, *, done: prediction_log.Done | None = None) -> prediction_log.Entry: ...

    def count(self, route: str, seconds: float) -> None: ...


def claim_of(caller: Caller, body: Callable[[], bytes]) -> Claim | None:
    """What keeps a caller's idempotency key for this answer; None without a key."""
    if caller.idempotency_key is None or caller.client_id is None:
        return None
    answer = body().decode()
    hours = settings.IDEMPOTENCY_HOURS
    return Claim(caller.client_id, caller.idempotency_key, caller.request_sha256, answer, hours)


def prepare(served: Served, rows: Rows, caller: Caller, generation: int) -> Prepared:
    """The model's answers to valid rows.

    Parameters
    ----------
    generation : see `Prepared.entry`; no answer gets an earlier time.

    Raises
    ------
    PredictionFailed, InvalidRows : the model has no answer to these values.
    """
    try:
        return prepared(served, rows, caller, generation)
    except PredictionFailed:
        logger.exception("%s %s could not answer", served.model_name, served.number)
        raise


def prepared(served: Served, rows: Rows, caller: Caller, generation: int) -> Prepared:
    """The same, without a line in the log when the model has no answer."""
    values, probabilities = outputs(served, rows)
    return Prepared(
        served,
        caller,
        rows,
        log_ids(len(rows), generation),
        _numbers(values) if probabilities is None else _labels(values),
        None if probabilities is None else _numbers(probabilities),
        [encode(warnings) if warnings else b"[]" for warnings in rows.warnings()],
    )


def _numbers(numbers: list[float]) -> list[bytes]:
    """Each as JSON: encoded as one array, which is quicker than one by one."""
    return encode(numbers)[1:-1].split(b",")


def _labels(labels: list[Any]) -> list[bytes]:
    known = {label: encode(label) for label in set(labels)}
    return [known[label] for label in labels]


def answer(
    served: Served,
    rows: Rows,
    caller: Caller,
    generation: int,
    *,
    committed: Callable[[Prepared], None] | None = None,
) -> Answer:
    """Predicts, logs, and only then answers.

    Parameters
    ----------
    generation : see `predictions.log.writer.Entry`.
    committed : called with what was committed by this very request, not by an earlier one.

    Raises
    ------
    predictions.log.writer.Stale : a version, key or right changed meanwhile; ask again.
    LogUnavailable : nothing could be logged, so nothing is answered.
    KeyReused : another request took the idempotency key meanwhile, with another body.
    PredictionFailed, InvalidRows : the model has no answer to these values.
    """
    prepared = prepare(served, rows, caller, generation)
    given = commit(prepared, generation)
    if committed is not None and not given.replayed:
        committed(prepared)
    return given


def commit(prepared: Committable, generation: int) -> Answer:
    """Logs what was prepared, and only then answers; or the stored answer of who was quicker under the same
    idempotency key.

    Raises
    ------
    predictions.log.writer.Stale, LogUnavailable, KeyReused : see `answer`.
    """
    try:
        prediction_log.append(prepared.entry(generation))
    except prediction_log.AlreadyAnswered:
        earlier = replay(prepared.caller)
        if earlier is None:  # it expired between two statements
            raise prediction_log.Stale from None
        return earlier
    return Answer(prepared.as_dict())


def outputs(served: Served, rows: Rows) -> tuple[list[Any], list[float] | None]:
    """(predictions, probabilities or None): the decision is made here, by the version's threshold.

    Raises
    ------
    PredictionFailed, InvalidRows : the model has no answer to these values.
    """
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
            compiled = cast("MatrixEngine", engine)
            return compiled.score(rows.matrix(), rows.texts(compiled.text_columns)).plain()
        names = served.schema.names
        found = engine.predict([dict(zip(names, row, strict=True)) for row in rows.values])
        return checked(found, len(rows))
    except Exception as error:  # whatever a step of the pipeline raises, no client is at fault for a 500
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
