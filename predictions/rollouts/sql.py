"""SQL of the rows of a rollout's arms and of their sums, built from constants only."""

from __future__ import annotations

from typing import Any, Final

from django.db import connection

from predictions.quality.sql import as_number, brier

BINS: Final = 10

# The latest of several outcomes of one prediction is the current one.
_OUTCOME: Final = """
    LEFT JOIN LATERAL (
        SELECT actual FROM predictions_outcome o WHERE o.prediction_id = arm.id ORDER BY o.id DESC LIMIT 1
    ) outcome ON true
"""
# The canary's clients, as `training.serving.canary_assignment` assigns them; one more byte allows a threshold
# of 2^64.
_IS_IN: Final = """
    ('\\x00'::bytea || substring(sha256(convert_to(%(version)s || ':' || client_id, 'UTF8')) FROM 1 FOR 8))
        < %(threshold)s
"""
SEPARATE: Final = f"""
    SELECT arm.id, arm.prediction, arm.probability, outcome.actual FROM (
        SELECT id, client_id, prediction, probability FROM predictions_prediction
        WHERE version_id = %(arm)s AND id >= %(since)s AND id < %(until)s ORDER BY id DESC LIMIT %(most)s
    ) arm {_OUTCOME}
    WHERE client_id IS NOT NULL AND ({_IS_IN}) = %(inside)s
"""  # noqa: S608 - constants alone
PAIRED: Final = f"""
    SELECT arm.*, outcome.actual FROM (
        SELECT log.id, log.prediction, log.probability,
            shadow.prediction AS tried, shadow.probability AS tried_probability
        FROM (
            SELECT * FROM predictions_shadowanswer WHERE rollout_id = %(rollout)s
            ORDER BY prediction_id DESC LIMIT %(most)s
        ) shadow JOIN predictions_prediction log ON log.id = shadow.prediction_id
        WHERE log.id >= %(since)s AND log.id < %(until)s
    ) arm {_OUTCOME}
"""  # noqa: S608 - constants alone
# The shadow's answers to the same rows.
TRIED: Final = f"""
    SELECT id, tried AS prediction, tried_probability AS probability, actual FROM ({PAIRED}) pair
"""  # noqa: S608 - constants alone


def columns(
    classifies: bool, suffix: str = "", prediction: str = "prediction", probability: str = "probability"
) -> str:
    """Returns the columns to aggregate of an arm's answers: `value`, the probability or the number itself;
    `loss` of two classes; `error` of numbers."""
    null, number = "NULL::float8", as_number(prediction)
    error = f"{number} - {as_number('actual')}"
    value, loss, error = (probability, brier(probability), null) if classifies else (number, null, error)
    return f"{value} AS value{suffix}, {loss} AS loss{suffix}, {error} AS error{suffix}"


def moments(name: str, value: str) -> str:
    """Returns the mean of an expression as `name`, and its deviation as `name`_deviation."""
    return f"avg({value}) AS {name}, stddev_samp({value}) AS {name}_deviation"


def bin_counts(value: str, edges: list[float]) -> str:
    """Returns an array of `BINS` counts; the last bin includes its upper edge."""
    if not edges:
        return "NULL"
    bins = f"least(greatest(width_bucket({value}, {edges[0]!r}, {edges[-1]!r}, {BINS}), 1), {BINS})"
    counts = ", ".join(f"count({value}) FILTER (WHERE {bins} = {number})" for number in range(1, BINS + 1))
    return f"ARRAY[{counts}]"


def bin_edges(arms: list[tuple[str, dict[str, Any]]], classifies: bool) -> list[float]:
    """Returns edges from 0 to 1 for probabilities, or from the least to the greatest answer of both arms."""
    low, high = 0.0, 1.0
    if not classifies:
        number = as_number("prediction")
        ends = [
            only_row(f"SELECT min({number}) AS low, max({number}) AS high FROM ({rows}) arm", parameters)  # noqa: S608
            for rows, parameters in arms
        ]
        known = [end for end in ends if end["low"] is not None]
        if not known:
            return []
        low, high = min(end["low"] for end in known), max(end["high"] for end in known)
        if low == high:
            low, high = low - 0.5, high + 0.5
    return [low + (high - low) * step / BINS for step in range(BINS)] + [high]


def only_row(statement: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Returns the single row of an aggregate as column name -> value."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        names = [column.name for column in cursor.description or ()]
        return dict(zip(names, cursor.fetchone() or (), strict=True))


def shares_of(counts: list[int] | None) -> list[float]:
    """Returns counts as shares of their sum; empty if the sum is 0."""
    total = sum(counts or ())
    return [count / total for count in counts or ()] if total else []
