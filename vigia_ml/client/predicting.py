"""Predictions in batches, some of them at the same time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from vigia_ml.client.core import Core, at, encoded_rows
from vigia_ml.client.errors import BadRequest, TooLarge, UnexpectedAnswer
from vigia_ml.client.flow import Flow, Gather, Work
from vigia_ml.client.frames import (
    Row,
    answers_frame,
    errors_frame,
    is_table,
    keyed,
    rows_of,
    schema_of,
    tabled,
)
from vigia_ml.client.progress import Report, nobody
from vigia_ml.client.results import Answer, Answers, Model, RowError, VersionFields
from vigia_ml.schema import DatasetSchema

BATCH_SIZE = 1_000
CONCURRENCY = 4
OnErrors = Literal["raise", "frame"]
Source = Callable[[int, int], Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Batching:
    """Size and order of the requests of one call.

    tolerant : whether invalid rows are reported and the others answered. key : begins the idempotency key of
    each batch; None: new keys. report : called with the number of rows done.
    """

    size: int = BATCH_SIZE
    concurrency: int = CONCURRENCY
    tolerant: bool = False
    key: str | None = None
    report: Report = nobody

    def __post_init__(self) -> None:
        if self.size < 1 or self.concurrency < 1:
            raise ValueError("batch_size and concurrency must be at least 1")


def predict(
    core: Core,
    model: str,
    rows: object,
    *,
    version: int | None,
    key_column: str | None,
    batching: Batching,
    probabilities: str,
) -> Flow[Any]:
    """Answers rows: a table gives a frame, mappings give a list of `Answer`, one mapping gives one `Answer`.

    With ``tolerant``, returns (answers, errors).
    """
    if probabilities not in ("dict", "columns", "none"):
        raise ValueError("probabilities must be 'dict', 'columns' or 'none'")
    path = at("models", model, "predictions")
    if version is not None:
        path = at("models", model, "versions", version, "predictions")
    if is_table(rows):
        schema = yield from schema_in_force(core, model, version)
        table = tabled(rows, schema)

        def converted(start: int, stop: int) -> Sequence[Row]:
            return rows_of(table.iloc[start:stop], schema, key_column=key_column)

        answers, errors = yield from answered(core, path, converted, len(table), batching)
        frame = answers_frame(answers, table.index, probabilities)  # type: ignore[arg-type]
        return (frame, errors_frame(errors, table.index)) if batching.tolerant else frame
    if isinstance(rows, Mapping):
        sent = keyed([rows], key_column)
        [answer], errors = yield from answered(core, path, _slices(sent), 1, batching)
        return (answer, errors) if batching.tolerant else answer
    if isinstance(rows, (str, bytes)) or not hasattr(rows, "__iter__"):
        raise TypeError(f"rows must be a DataFrame, a list of dicts or one dict, not {type(rows).__name__}")
    sent = keyed(list(rows), key_column)
    answers, errors = yield from answered(core, path, _slices(sent), len(sent), batching)
    return (answers, errors) if batching.tolerant else answers


def schema_in_force(core: Core, model: str, version: int | None) -> Flow[DatasetSchema]:
    """Returns the schema of the active version, or of another one."""
    if version is None:
        plain = (yield from core.get(at("models", model), Model)).schema
    else:
        plain = (yield from core.get(at("models", model, "versions", version), VersionFields)).schema
    return schema_of(plain, model)


def _slices(rows: Sequence[Row]) -> Source:
    return lambda start, stop: rows[start:stop]


def answered(
    core: Core, path: str, source: Source, total: int, batching: Batching
) -> Flow[tuple[list[Answer | None], list[RowError]]]:
    """Returns the answers in the order of the rows, and the faults of rows without an answer.

    Parameters
    ----------
    source : returns the rows from one position to another; only those of the present batches are held.
    """
    answers: list[Answer | None] = [None] * total
    errors: list[RowError] = []

    def batch(number: int, start: int) -> Flow[None]:
        stop = min(start + batching.size, total)
        rows: Sequence[Row] = yield Work(partial(source, start, stop))
        one = _Batch(core, path, rows, start, total, batching, answers, errors)
        yield from one.answer(range(len(rows)), str(number))

    starts = range(0, total, batching.size)
    batching.report(0, total)
    if starts:
        flows = (batch(number, start) for number, start in enumerate(starts))
        yield Gather(flows, min(batching.concurrency, len(starts)))
    return answers, sorted(errors, key=lambda each: each.row)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows of one batch.

    start : position of its first row among all rows; total : number of all rows, to which answers and errors
    belong.
    """

    core: Core
    path: str
    rows: Sequence[Row]
    start: int
    total: int
    batching: Batching
    answers: list[Answer | None]
    errors: list[RowError]

    def answer(self, positions: Sequence[int], name: str) -> Flow[None]:
        """Answers the rows at `positions`. Rows without a fault are sent again without the others, and a body
        that is too large in halves.

        Parameters
        ----------
        name : distinguishes this body from the others of the call.
        """
        waiting = [(positions, name)]
        while waiting:
            positions, name = waiting.pop()
            key = f"{self.batching.key}-{name}" if self.batching.key else None
            try:
                body = encoded_rows([self.rows[position] for position in positions])
                reply = yield from self.core.post(self.path, Answers, body, idempotency_key=key)
            except BadRequest as error:
                good = self._set_aside(error, positions)
                self.batching.report(len(positions) - len(good), self.total)
                if good:
                    waiting.append((good, f"{name}r"))
                continue
            except TooLarge:
                if len(positions) == 1:
                    raise
                middle = len(positions) // 2
                waiting += [(positions[middle:], f"{name}b"), (positions[:middle], f"{name}a")]
                continue
            if len(reply.predictions) != len(positions):
                raise UnexpectedAnswer(f"{len(reply.predictions)} answers came for {len(positions)} rows")
            for position, answer in zip(positions, reply.predictions, strict=True):
                self.answers[self.start + position] = _with_version(answer, reply.version)
            self.batching.report(len(positions), self.total)

    def _set_aside(self, error: BadRequest, positions: Sequence[int]) -> list[int]:
        """Records the faults of rows and returns the positions of the other rows.

        Raises
        ------
        BadRequest : faults are not tolerated, or not those of a row.
        """
        placed = [
            fault | {"row": self.start + positions[fault["row"]]}
            for fault in error.details
            if isinstance(fault.get("row"), int) and 0 <= fault["row"] < len(positions)
        ]
        if not self.batching.tolerant or not placed:
            if len(placed) == len(error.details):
                error.details = placed  # positions in the rows given, not in the batch
            raise error
        self.errors.extend(
            RowError(
                row=fault["row"],
                field=fault.get("field"),
                code=str(fault.get("code", "")),
                message=str(fault.get("message", "")),
                value=fault.get("value"),
                allowed=fault.get("allowed"),
            )
            for fault in placed
        )
        bad = {fault["row"] - self.start for fault in placed}
        return [position for position in positions if position not in bad]


def _with_version(answer: Answer, version: int) -> Answer:
    return Answer(
        id=answer.id,
        prediction=answer.prediction,
        probability=answer.probability,
        probabilities=answer.probabilities,
        warnings=answer.warnings,
        version=version,
    )
