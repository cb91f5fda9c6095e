"""SQL of single predictions with outcomes: positive, as a number, Brier."""

from __future__ import annotations

import json

from training.models import ModelVersion


def positive(version: ModelVersion) -> str | None:
    """The class whose probability the log holds, as JSON; None where it holds that of the likeliest class.

    With a threshold there are two classes and the log holds the second's: true, or the last in order.
    """
    target = version.dataset_schema.target
    if version.threshold is None:
        return None
    if target.type == "boolean":
        return "true"
    levels = sorted(target.levels or (target.seen.levels if target.seen else ()))
    return json.dumps(levels[-1]) if len(levels) == 2 else None


def as_number(column: str) -> str:
    """A JSON number as a double; null for anything else."""
    return f"CASE WHEN jsonb_typeof({column}) = 'number' THEN {column}::float8 END"


def brier(probability: str) -> str:
    """(p - y)^2 of two classes (Brier 1950); null where there are more, or no outcome."""
    happened = "(actual = %(positive)s::jsonb)::int"
    return f"CASE WHEN actual IS NOT NULL THEN ({probability} - {happened}) ^ 2 END"
