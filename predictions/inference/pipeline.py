"""The one path of every answer: read → predict → log → answer.

Every route (API, tutorial routes) and every caller (a view, the fast path) reads rows with
`predictions.inference.reading`, computes answers with `prepare`, and sends them only after their entry was
committed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import msgspec
from django.conf import settings

from core.metrics import counters
from core.uuid7 import log_ids
from predictions.errors import PredictionFailed
from predictions.log import writer as prediction_log
from predictions.log.statements import NO_WARNINGS, Claim, LogRows, Origin
from training import idempotency
from training.idempotency import RetryKey
from training.serving.engine_cache import Served
from vigia_ml.engines import Scored
from vigia_ml.engines.shape import checked
from vigia_ml.schema import Fault, InvalidRows
from vigia_ml.schema.faults import REPORTED_FAULTS
from vigia_ml.schema.row_decoder import Rows

if TYPE_CHECKING:
    from vigia_ml.engines import MatrixEngine, Scores

logger = logging.getLogger(__name__)
encode = msgspec.json.Encoder().encode
INFINITY: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Caller:
    """The client of a request, with its request id and idempotency key."""

    client_id: int | None
    request_id: str
    idempotency_key: str | None = None
    request_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of a response; `replayed` marks the stored answer to an earlier request."""

    body: dict[str, Any]
    replayed: bool = False


def replay(caller: Caller) -> Answer | None:
    """Returns the stored answer to this caller's idempotency key, or None.

    Raises
    ------
    KeyReused : the key belongs to another request.
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
    """Answers that may be sent once their entry is committed.

    Each list holds one element per row, as JSON: the log and the response get the same bytes.

    ids : UUIDv7s (without quotes), ascending, so that a request's rows keep their order in the log.
    probabilities : None for a regression. by_class : every class's probability, an object for each row; None
        for a regression, and if the model's switch is off. logged : the same as arrays, as the log has them;
        None for two classes, whose probabilities follow from `probabilities`.
    """

    served: Served
    caller: Caller
    rows: Rows
    ids: list[bytes]
    values: list[bytes]
    probabilities: list[bytes] | None
    warnings: list[bytes]
    by_class: list[bytes] | None = None
    logged: list[bytes] | None = None

    def body(self) -> bytes:
        """Returns the body of the response, in JSON."""
        if self.probabilities is None:
            predictions = [
                b'{"id":"%s","prediction":%s,"warnings":%s}' % cells
                for cells in zip(self.ids, self.values, self.warnings, strict=True)
            ]
        elif self.by_class is None:
            predictions = [
                b'{"id":"%s","prediction":%s,"probability":%s,"warnings":%s}' % cells
                for cells in zip(self.ids, self.values, self.probabilities, self.warnings, strict=True)
            ]
        else:
            columns = (self.ids, self.values, self.probabilities, self.by_class, self.warnings)
            predictions = [
                b'{"id":"%s","prediction":%s,"probability":%s,"probabilities":%s,"warnings":%s}' % cells
                for cells in zip(*columns, strict=True)
            ]
        served = self.served
        head = b'{"model":"%s","version":%d,"predictions":[' % (served.model_name.encode(), served.number)
        return b"%s%s]}" % (head, b",".join(predictions))

    def as_dict(self) -> dict[str, Any]:
        """Returns the decoded body."""
        body: dict[str, Any] = msgspec.json.decode(self.body())
        return body

    def entry(self, generation: int, *, done: prediction_log.Done | None = None) -> prediction_log.Entry:
        """Returns the log entry that must be committed before the answer is sent.

        Parameters
        ----------
        generation : read before all data of the answer; see `training.serving.routing`.
        """
        caller, keys = self.caller, self.rows.keys
        rows = LogRows(
            origin_of(self.served, caller),
            self.ids,
            self.rows.inputs(),
            self.values,
            self.probabilities,
            [None if key is None else key.encode() for key in keys] if any(keys) else None,
            self.warnings if any(warnings is not NO_WARNINGS for warnings in self.warnings) else None,
            self.logged,
        )
        return prediction_log.Entry(rows, generation, claim=claim_of(caller, self.body), done=done)

    def count(self, route: str, seconds: float) -> None:
        """Counts a sent answer in the metrics; see `core.metrics.counters.answered`."""
        classes = self.probabilities is not None
        counters.answered(route, self.served, self.values, seconds, classes=classes)

    def count_rows(self, route: str) -> None:
        """Counts answers that no client waited for; see `core.metrics.counters.scored`."""
        counters.scored(route, self.served, self.values, classes=self.probabilities is not None)


class NotFinite(InvalidRows):
    """The model's answers to some rows are not finite; `positions` are all of these rows."""

    def __init__(self, positions: Sequence[int], rows: int) -> None:
        self.positions = positions
        message = "the model's answer is not finite"
        faults = [
            Fault(None, "no_finite_answer", message, row=position)
            for position in positions[: REPORTED_FAULTS + 1]
        ]
        super().__init__(faults, rows=rows, bad=len(positions))


class Committable(Protocol):
    """An answer that may be sent once its entry is committed; `Prepared` is the one for rows."""

    @property
    def caller(self) -> Caller: ...

    def body(self) -> bytes: ...

    def as_dict(self) -> dict[str, Any]: ...

    def entry(self, generation: int, *, done: prediction_log.Done | None = None) -> prediction_log.Entry: ...

    def count(self, route: str, seconds: float) -> None: ...


def origin_of(served: Served, caller: Caller) -> Origin:
    """Returns the columns of the log that are equal in all rows of a request."""
    client_id = None if caller.client_id is None else b"%d" % caller.client_id
    return b"%d" % served.model_id, b"%d" % served.version_id, client_id, caller.request_id.encode()


def claim_of(caller: Caller, body: Callable[[], bytes]) -> Claim | None:
    """Returns the claim of the caller's idempotency key for this answer; None without a key."""
    if caller.idempotency_key is None or caller.client_id is None:
        return None
    answer = body().decode()
    hours = settings.IDEMPOTENCY_HOURS
    return Claim(caller.client_id, caller.idempotency_key, caller.request_sha256, answer, hours)


def prepare(served: Served, rows: Rows, caller: Caller, generation: int, *, every_class: bool) -> Prepared:
    """Returns the model's answers to valid rows.

    Parameters
    ----------
    generation : see `Prepared.entry`; no id of an answer has an earlier time.
    every_class : see `training.serving.routing.RoutedVersion`.

    Raises
    ------
    PredictionFailed, InvalidRows : the model has no answer to these values.
    """
    try:
        return prepared(served, rows, caller, generation, every_class=every_class)
    except PredictionFailed:
        logger.exception("%s %s could not answer", served.model_name, served.number)
        raise


def prepared(served: Served, rows: Rows, caller: Caller, generation: int, *, every_class: bool) -> Prepared:
    """Returns the same as `prepare`, and logs no line when the model has no answer."""
    values, probabilities, of_classes = outputs(served, rows)
    written = objects = arrays = None
    if probabilities is not None and every_class and served.by_class is not None:
        written, objects, arrays = _by_class(served.by_class, probabilities, of_classes)
    elif probabilities is not None:
        written = _numbers(probabilities)
    return Prepared(
        served,
        caller,
        rows,
        log_ids(len(rows), generation),
        _numbers(values) if probabilities is None else _labels(values),
        written,
        [encode(warnings) if warnings else NO_WARNINGS for warnings in rows.warnings()],
        objects,
        arrays,
    )


def _by_class(
    form: bytes, probabilities: list[float], of_classes: list[list[float]] | None
) -> tuple[list[bytes], list[bytes], list[bytes] | None]:
    """Returns the probabilities as JSON, and `Prepared.by_class` and `Prepared.logged`.

    Parameters
    ----------
    form : see `Served.by_class`. of_classes : see `outputs`; None for two classes, whose first one has the
        rest of the second one's probability.
    """
    if of_classes is None:
        count = len(probabilities)
        if count == 1:  # most requests: a microsecond less than the lines below
            of_second, _, of_first = encode((probabilities[0], 1.0 - probabilities[0]))[1:-1].partition(b",")
            return [of_second], [form % (of_first, of_second)], None
        written = _numbers([*probabilities, *[1.0 - each for each in probabilities]])
        pairs = zip(written[count:], written[:count], strict=True)
        return written[:count], [form % cells for cells in pairs], None
    rows = encode(of_classes)[2:-2].split(b"],[")
    objects = [form % tuple(row.split(b",")) for row in rows]
    return _numbers(probabilities), objects, [b"[%s]" % row for row in rows]


def _numbers(numbers: list[float]) -> list[bytes]:
    """Returns each number as JSON; encoding one array is quicker than encoding each number."""
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
    every_class: bool,
    committed: Callable[[Prepared], None] | None = None,
) -> Answer:
    """Predicts, logs, and only then returns the answer.

    Parameters
    ----------
    generation : see `predictions.log.writer.Entry`.
    every_class : see `training.serving.routing.RoutedVersion`.
    committed : called with the answers that this request committed, not with a stored answer.

    Raises
    ------
    predictions.log.writer.Stale : a version, key or right changed meanwhile; compute the answer again.
    LogUnavailable : the log could not be written, so there is no answer.
    KeyReused : another request with another body took the idempotency key meanwhile.
    PredictionFailed, InvalidRows : the model has no answer to these values.
    """
    prepared = prepare(served, rows, caller, generation, every_class=every_class)
    answer = commit(prepared, generation)
    if committed is not None and not answer.replayed:
        committed(prepared)
    return answer


def commit(prepared: Committable, generation: int) -> Answer:
    """Logs prepared answers, and only then returns them; or returns the stored answer if a concurrent request
    with the same idempotency key was committed first.

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


def outputs(served: Served, rows: Rows) -> tuple[list[Any], list[float] | None, list[list[float]] | None]:
    """Returns (predictions, probabilities, every class's probabilities); the version's threshold decides the
    class.

    probabilities : for two classes that of the second one, else that of the predicted class; None for a
        regression. The third list is None for a regression and for two classes.

    Raises
    ------
    PredictionFailed, InvalidRows : the model has no answer to these values.
    """
    scores = _scores(served, rows)
    threshold = served.threshold
    if threshold is not None and scores.probabilities is not None:
        negative, positive = scores.classes
        if isinstance(scores, Scored):
            probabilities = scores.probabilities[:, 1].tolist()
        else:
            probabilities = [row[1] for row in scores.probabilities]
        _must_be_finite(probabilities)
        decided = [positive if each >= threshold else negative for each in probabilities]
        return decided, probabilities, None
    if isinstance(scores, Scored):
        scores = scores.plain()
    if scores.probabilities is None:
        values = list(scores.values)
        _must_be_finite(values)
        return values, None, None
    of_classes = [list(row) for row in scores.probabilities]
    _must_be_finite([sum(row) for row in of_classes])  # a sum is finite if all its parts are
    return list(scores.values), [max(row) for row in of_classes], of_classes


def _scores(served: Served, rows: Rows) -> Scored | Scores:
    engine = served.engine
    try:
        if engine.takes_matrix:
            compiled = cast("MatrixEngine", engine)
            return compiled.score(rows.matrix(), rows.texts(compiled.text_columns))
        names = served.schema.names
        scores = engine.predict([dict(zip(names, row, strict=True)) for row in rows.values])
        return checked(scores, len(rows))
    except Exception as error:  # a step may raise anything, and no client is at fault for a 500
        raise PredictionFailed(f"the model has no answer to these values: {error}") from error


def _must_be_finite(numbers: Sequence[float]) -> None:
    """Raises `NotFinite` with the rows that have no finite answer."""
    if all(-INFINITY < number < INFINITY for number in numbers):  # false for NaN
        return
    raise NotFinite(
        [at for at, number in enumerate(numbers) if not -INFINITY < number < INFINITY], len(numbers)
    )
