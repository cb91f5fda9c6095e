"""SQL expressions over single labelled predictions: positive class, number, Brier score."""

from __future__ import annotations

import json

from training.models import ModelVersion


def positive(version: ModelVersion) -> str | None:
    """Returns the class whose probability the log holds, as JSON; None if it holds the likeliest class's.

    A version with a threshold has two classes, and the log holds the second one's probability: true, or the
    last in order.
    """
    target = version.dataset_schema.target
    if version.threshold is None:
        return None
    if target.type == "boolean":
        return "true"
    levels = sorted(target.levels or (target.seen.levels if target.seen else ()))
    return json.dumps(levels[-1]) if len(levels) == 2 else None


def as_number(column: str) -> str:
    """Returns SQL for a JSON number as a double; null for other JSON."""
    return f"CASE WHEN jsonb_typeof({column}) = 'number' THEN {column}::float8 END"


def brier(probability: str) -> str:
    """Returns SQL for (p - y)^2 of two classes (Brier 1950); null for more classes or without an outcome."""
    happened = "(actual = %(positive)s::jsonb)::int"
    return f"CASE WHEN actual IS NOT NULL THEN ({probability} - {happened}) ^ 2 END"
