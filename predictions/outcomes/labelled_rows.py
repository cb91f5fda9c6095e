"""Logged predictions with what became of them: the newest outcome of each, by time of the prediction.

An outcome carries the id of its prediction, and ids are time: the outcomes of a window are a range of the
index (prediction_id, -id), which has them in the order in which the newest of each prediction is taken. What
this costs grows with the outcomes of the window, not with the log.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Final, NamedTuple

from django.db import connection

PAGE: Final = 10_000

# The log is joined on the left, so that a page is as long as it was asked for even where the months of some
# predictions have been dropped: the next page begins after the last row of this one. LIMIT makes it one look
# into the index for each; the planner would rather read the whole log once.
_QUESTION: Final = """
    SELECT held.prediction_id::text, log.version_id, log.key, {cells}, log.prediction::text, log.probability,
           held.actual::text, held.observed_at
    FROM (
        SELECT DISTINCT ON (prediction_id) prediction_id, actual, observed_at
        FROM predictions_outcome
        WHERE registered_model_id = %s AND prediction_id > %s AND prediction_id < %s
        ORDER BY prediction_id, id DESC
        LIMIT %s
    ) AS held
    LEFT JOIN LATERAL (
        SELECT * FROM predictions_prediction WHERE id = held.prediction_id LIMIT 1
    ) AS log ON true
    ORDER BY held.prediction_id
"""


class Labelled(NamedTuple):
    """One logged prediction with its outcome; what is JSON is text as it is stored.

    cells : the inputs as an array, or None where they were not asked for.
    """

    prediction_id: str
    version_id: int
    key: str | None
    cells: str | None
    prediction: str
    probability: float | None
    actual: str
    observed_at: object


def pages(
    model_id: int, low: uuid.UUID, high: uuid.UUID, *, inputs: bool, size: int = PAGE
) -> Iterator[list[Labelled]]:
    """The labelled predictions with low <= id < high, ascending, in pages; each is one short statement.

    Parameters
    ----------
    low, high : see `core.uuid7.lowest_at`.
    inputs : whether the cells are read as well.
    """
    question = _QUESTION.format(cells="log.inputs::text" if inputs else "NULL::text")
    after = str(uuid.UUID(int=max(low.int - 1, 0)))
    while True:
        with connection.cursor() as cursor:
            cursor.execute(question, [model_id, after, str(high), size])
            found = cursor.fetchall()
        rows = [Labelled(*row) for row in found if row[1] is not None]
        if rows:
            yield rows
        if len(found) < size:
            return
        after = found[-1][0]
