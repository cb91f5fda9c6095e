"""Answers of a candidate to requests as clients send them: body, decoder, engine, encoder.

See `training.registry.answers_check`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from predictions.inference import pipeline, reading
from predictions.inference.pipeline import Caller
from training.registry.answers_check import Unusable
from training.serving.engine_cache import Served
from vigia_ml.schema import Value
from vigia_ml.schema.csv_dialect import UTF8, Told
from vigia_ml.schema.row_decoder import Rows

Answers = list[tuple[Any, float | None]]
REHEARSAL = Caller(None, "rehearsal")


def by_json(served: Served, rows: Sequence[Mapping[str, Value]]) -> Answers:
    """Returns the answers to an array of objects; a single row is sent as one object."""
    body = pipeline.encode(rows if len(rows) > 1 else rows[0])
    return _answers(served, reading.read_body(served, body), len(rows))


def by_csv(served: Served, rows: Sequence[Mapping[str, Value]]) -> Answers:
    """Returns the answers to a CSV with header."""
    names = served.schema.names
    text = io.StringIO(newline="")
    # Unquoted, a row of one empty cell would be a blank line.
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(names)
    writer.writerows([["" if row[name] is None else _cell(row[name]) for name in names] for row in rows])
    stream = io.BytesIO(text.getvalue().encode())
    decoded = reading.read_csv(served, stream, Told(",", ".", "", UTF8))
    return _answers(served, decoded, len(rows))


def _cell(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _answers(served: Served, rows: Rows, count: int) -> Answers:
    body = pipeline.prepared(served, rows, REHEARSAL, generation=0, every_class=True).as_dict()
    answers = body["predictions"]
    if len(answers) != count:
        raise Unusable(f"{len(answers)} answers to {count} rows")
    return [(each["prediction"], each.get("probability")) for each in answers]
