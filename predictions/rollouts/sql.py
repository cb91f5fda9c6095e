"""SQL of the rows of a rollout's arms and of their sums, built from constants only."""

from __future__ import annotations

from typing import Any, Final, Literal

from django.db import connection

from predictions.quality.sql import as_number, brier, brier_of_classes

BINS: Final = 10
Kind = Literal["numbers", "two", "several"]
"""Answers of a rollout: numbers, two classes, or several."""

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
    SELECT arm.id, arm.prediction, arm.probability, arm.probabilities, outcome.actual FROM (
        SELECT id, client_id, prediction, probability, probabilities FROM predictions_prediction
        WHERE version_id = %(arm)s AND id >= %(since)s AND id < %(until)s ORDER BY id DESC LIMIT %(most)s
    ) arm {_OUTCOME}
    WHERE client_id IS NOT NULL AND ({_IS_IN}) = %(inside)s
"""  # noqa: S608 - constants alone
PAIRED: Final = f"""
    SELECT arm.*, outcome.actual FROM (
        SELECT log.id, log.prediction, log.probability, log.probabilities,
            shadow.prediction AS tried_prediction, shadow.probability AS tried_probability,
            shadow.probabilities AS tried_probabilities
        FROM (
            SELECT * FROM predictions_shadowanswer WHERE rollout_id = %(rollout)s
            ORDER BY prediction_id DESC LIMIT %(most)s
        ) shadow JOIN predictions_prediction log ON log.id = shadow.prediction_id
        WHERE log.id >= %(since)s AND log.id < %(until)s
    ) arm {_OUTCOME}
"""  # noqa: S608 - constants alone
# The shadow's answers to the same rows.
TRIED: Final = f"""
    SELECT id, tried_prediction AS prediction, tried_probability AS probability,
        tried_probabilities AS probabilities, actual
    FROM ({PAIRED}) pair
"""  # noqa: S608 - constants alone


def columns(kind: Kind, suffix: str = "", prefix: str = "") -> str:
    """Returns the columns to aggregate of an arm's answers: `value`, the probability or the number itself;
    `loss`, the Brier score of classes; `error` of numbers.

    Parameters
    ----------
    suffix : of the returned columns, and of the parameter `classes`. prefix : of the columns of the answer.
    """
    null, probability = "NULL::float8", f"{prefix}probability"
    number = as_number(f"{prefix}prediction")
    value, loss, error = number, null, f"{number} - {as_number('actual')}"
    if kind != "numbers":
        value, error = probability, null
        of_several = brier_of_classes(f"{prefix}probabilities", f"classes{suffix}")
        loss = brier(probability) if kind == "two" else of_several
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
