"""Whether an engine's scores have the shape of answers. No Django here."""

from __future__ import annotations

from collections.abc import Sequence

from vigia_ml.engines import Scores


def checked(scores: Scores, rows: int) -> Scores:
    """The scores, if they are numbers or probabilities for so many rows.

    Raises
    ------
    ValueError : an estimator of one's own may give too few answers, lists, or objects.
    """
    numbers = scores.values if scores.probabilities is None else scores.probabilities
    if not isinstance(numbers, Sequence) or len(numbers) != rows:
        given = len(numbers) if isinstance(numbers, Sequence) else "no list of"
        raise ValueError(f"the estimator gives {given} answers to {rows} rows")
    for number in numbers:
        if scores.probabilities is not None:
            if len(number) != len(scores.classes):
                raise ValueError(f"the estimator gives {len(number)} of {len(scores.classes)} probabilities")
        elif not isinstance(number, (float, int)) or isinstance(number, bool):
            raise ValueError(f"the estimator answers a row with a {type(number).__name__}, not with a number")
    return scores
