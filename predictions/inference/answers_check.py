"""A candidate asked as clients ask: body, decoder, engine, encoder. See `training.registry.answers_check`."""

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

Answered = list[tuple[Any, float | None]]
NOBODY = Caller(None, "rehearsal")


def by_json(served: Served, rows: Sequence[Mapping[str, Value]]) -> Answered:
    """The answers to an array of objects, or to one object where there is one row."""
    body = pipeline.encode(rows if len(rows) > 1 else rows[0])
    return _answered(served, reading.read_body(served, body), len(rows))


def by_csv(served: Served, rows: Sequence[Mapping[str, Value]]) -> Answered:
    """The answers to a CSV with header."""
    names = served.schema.names
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)  # a lone empty cell would be no row
    writer.writerow(names)
    writer.writerows([["" if row[name] is None else _cell(row[name]) for name in names] for row in rows])
    stream = io.BytesIO(text.getvalue().encode())
    found = reading.read_csv(served, stream, Told(",", ".", "", UTF8))
    return _answered(served, found, len(rows))


def _cell(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _answered(served: Served, rows: Rows, count: int) -> Answered:
    body = pipeline.prepared(served, rows, NOBODY, generation=0).as_dict()
    given = body["predictions"]
    if len(given) != count:
        raise Unusable(f"{len(given)} answers to {count} rows")
    return [(each["prediction"], each.get("probability")) for each in given]
