"""Classes of a version, and SQL expressions over single labelled predictions: number, Brier score."""

from __future__ import annotations

import json
from typing import Any

from training.models import ModelVersion


def classes_of(version: ModelVersion) -> tuple[Any, Any] | None:
    """Returns the negative and the positive class; the log holds the positive one's probability.

    A version with a threshold has two classes: false and true, or two levels in their order. For any other
    version, the log holds the probability of the likeliest class, and the result is None.
    """
    if version.threshold is None:
        return None
    target = version.dataset_schema.target
    if target.type == "boolean":
        return False, True
    levels = sorted(target.levels or (target.seen.levels if target.seen else ()))
    return (levels[0], levels[1]) if len(levels) == 2 else None


def positive(version: ModelVersion) -> str | None:
    """Returns the positive class as JSON; None without one."""
    classes = classes_of(version)
    return None if classes is None else json.dumps(classes[1])


def as_number(column: str) -> str:
    """Returns SQL for a JSON number as a double; null for other JSON."""
    return f"CASE WHEN jsonb_typeof({column}) = 'number' THEN {column}::float8 END"


def brier(probability: str) -> str:
    """Returns SQL for (p - y)^2 of two classes (Brier 1950); null for more classes or without an outcome."""
    is_positive = "(actual = %(positive)s::jsonb)::int"
    return f"CASE WHEN actual IS NOT NULL THEN ({probability} - {is_positive}) ^ 2 END"


def brier_of_classes(probabilities: str, classes: str) -> str:
    """Returns SQL for the Brier score of several classes, the sum over the classes of (p - y)^2; null without
    an outcome or without the probability of every class.

    Parameters
    ----------
    probabilities : column of a JSON array. classes : parameter with the classes of its elements, as JSON.
    """
    is_actual = f"((%({classes})s::jsonb -> (n - 1)::int) = actual)::int"
    elements = f"json_array_elements_text({probabilities}) WITH ORDINALITY AS each (p, n)"
    total = f"SELECT sum((p::float8 - {is_actual}) ^ 2) FROM {elements}"  # noqa: S608 - constants alone
    return f"CASE WHEN actual IS NOT NULL THEN ({total}) END"
