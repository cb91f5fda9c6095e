"""Labelled rows: logged predictions, each with its newest outcome, by time of the prediction.

An outcome carries the id of its prediction, and ids order by time: the outcomes of a window are a range of
the index (prediction_id, -id), which lists the newest outcome of each prediction first. The cost grows with
the outcomes of the window, not with the log.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Final, NamedTuple

from django.db import connection

PAGE: Final = 10_000

# The LEFT JOIN keeps a page at full length even if the months of some predictions were dropped: the next page
# begins after the last row of this one. LIMIT makes the join one index probe per row; without it the planner
# reads the whole log.
_PAGE_STATEMENT: Final = """
    SELECT held.prediction_id::text, log.version_id, log.key, {cells}, log.prediction::text, log.probability,
           log.probabilities::text, held.actual::text, held.observed_at
    FROM (
        SELECT DISTINCT ON (prediction_id) prediction_id, actual, observed_at
        FROM predictions_outcome
        WHERE registered_model_id = %s AND prediction_id > %s AND prediction_id < %s
        ORDER BY prediction_id {order}, id DESC
        LIMIT %s
    ) AS held
    LEFT JOIN LATERAL (
        SELECT * FROM predictions_prediction WHERE id = held.prediction_id LIMIT 1
    ) AS log ON true
    ORDER BY held.prediction_id {order}
"""


class Labelled(NamedTuple):
    """One logged prediction with its outcome; JSON values are text as stored.

    cells : the inputs as an array, or None if `pages` did not read them. by_class : see
    `predictions.models.Prediction`.
    """

    prediction_id: str
    version_id: int
    key: str | None
    cells: str | None
    prediction: str
    probability: float | None
    by_class: str | None
    actual: str
    observed_at: dt.datetime


def pages(
    model_id: int,
    low: uuid.UUID,
    high: uuid.UUID,
    *,
    inputs: bool,
    size: int = PAGE,
    newest_first: bool = False,
) -> Iterator[list[Labelled]]:
    """Yields pages of the labelled predictions with low <= id < high, by one statement per page.

    A page of predictions whose months were dropped is empty, so that a caller can stop after it.

    Parameters
    ----------
    low, high : see `core.uuid7.lowest_at`.
    inputs : whether to read the cells as well.
    """
    cells, order = "log.inputs::text" if inputs else "NULL::text", "DESC" if newest_first else "ASC"
    statement = _PAGE_STATEMENT.format(cells=cells, order=order)
    after, before = str(uuid.UUID(int=max(low.int - 1, 0))), str(high)
    while True:
        with connection.cursor() as cursor:
            cursor.execute(statement, [model_id, after, before, size])
            fetched = cursor.fetchall()
        rows = [Labelled(*row) for row in fetched if row[1] is not None]
        if fetched:
            yield rows
        if len(fetched) < size:
            return
        if newest_first:
            before = fetched[-1][0]
        else:
            after = fetched[-1][0]
