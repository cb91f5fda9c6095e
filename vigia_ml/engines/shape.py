"""Checks the shape of an engine's scores. No Django here."""

from __future__ import annotations

from collections.abc import Sequence

from vigia_ml.engines import Scores


def checked(scores: Scores, rows: int) -> Scores:
    """Returns the scores if they are numbers or probabilities for `rows` rows.

    Raises
    ------
    ValueError : otherwise; a custom estimator may return too few answers, lists, or objects.
    """
    numbers = scores.values if scores.probabilities is None else scores.probabilities
    if not isinstance(numbers, Sequence) or len(numbers) != rows:
        count = len(numbers) if isinstance(numbers, Sequence) else "no list of"
        raise ValueError(f"the estimator returns {count} answers to {rows} rows")
    for number in numbers:
        if scores.probabilities is not None:
            if len(number) != len(scores.classes):
                raise ValueError(
                    f"the estimator returns {len(number)} of {len(scores.classes)} probabilities"
                )
        elif not isinstance(number, (float, int)) or isinstance(number, bool):
            raise ValueError(f"the estimator returns a {type(number).__name__} for a row instead of a number")
    return scores
