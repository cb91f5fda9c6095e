"""A candidate is asked before it may be active: on the path that predictions take, by JSON and by CSV.

That path lies above this app and registers itself here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from django.utils.module_loading import import_string

from core.errors import GateNotPassed
from training.models import ModelVersion
from vigia_ml.schema import Column, InvalidRows, Value

if TYPE_CHECKING:
    from training.serving.engine_cache import Served
    from vigia_ml.evaluation.metrics import Check

ANSWERS: Final = "answers"
"""Name of the gate's check."""
ADVICE: Final = "; correct build() in the model's file"
TOLERANCE: Final = 1e-4
"""Relative; what is looked for here is another answer, digits are compared by `vigia_ml.engines.parity`."""

Ask = Callable[["Served", Sequence[Mapping[str, Value]]], Sequence[tuple[object, float | None]]]
"""Asks about valid rows as clients do and returns (prediction, probability) of each. Raises whatever goes
wrong, `Unusable` for answers that cannot go out."""

Expected = tuple[tuple[object, ...], float]
"""Possible labels and their probability; without labels, a number."""

_PATHS: dict[str, str] = {}


class Unusable(ValueError):
    """An answer that a client could not be given; the message says why."""


def register(name: str, ask: str) -> None:
    """Adds a way in which clients ask.

    Parameters
    ----------
    name : such as ``JSON``. ask : dotted path of an `Ask`.
    """
    _PATHS[name] = ask


def paths() -> list[tuple[str, Ask]]:
    """The ways in which clients ask, by name."""
    return [(name, import_string(path)) for name, path in _PATHS.items()]


def check(served: Served, rows: Sequence[Mapping[str, Value]], expected: Sequence[Expected]) -> Check:
    """``answers``: asked by JSON and CSV, together and one by one, a candidate answers as on its hold-out.

    Parameters
    ----------
    served : the candidate as a web process would load it. rows : of the hold-out.
    expected : its answers there.
    """
    from vigia_ml.evaluation.metrics import Check  # pandas and scikit-learn, which a job needs anyway

    together = tuple(range(len(rows)))
    for name, ask in paths():
        for places in (together, *((place,) for place in together)):
            asked = f"asked by {name} for {len(places)} hold-out {'row' if len(places) == 1 else 'rows'}"
            try:
                answers = ask(served, [rows[place] for place in places])
            except Exception as error:  # whatever it is, each prediction would meet it
                return Check(
                    ANSWERS, None, None, False, f"{asked}, it does not answer: {_said(error)}{ADVICE}"
                )
            for place, (answer, probability) in zip(places, answers, strict=True):
                why = _differs(served.schema.target, answer, probability, *expected[place])
                if why:
                    return Check(ANSWERS, None, None, False, f"{asked}, {why}{ADVICE}")
    said = f"it answers {len(rows)} hold-out rows asked by {' and '.join(_PATHS)} as it was measured"
    return Check(ANSWERS, None, None, True, said)


def _said(error: Exception) -> str:
    said = error.faults[0].message if isinstance(error, InvalidRows) and error.faults else str(error)
    return (said.splitlines() or [type(error).__name__])[0][:300]


def _differs(
    target: Column, answer: object, probability: float | None, labels: tuple[object, ...], number: float
) -> str:
    """How an answer is not what was measured; empty where it is."""
    if target.is_numeric:
        if not isinstance(answer, (float, int)) or isinstance(answer, bool):
            return f"it answers {answer!r:.80}, which is no number"
        given = float(answer)
    else:
        if not any(answer == label and type(answer) is type(label) for label in labels):
            return f"it answers {answer!r:.80} where the estimator answers {labels[0]!r:.80}"
        if isinstance(answer, bool) != (target.type == "boolean"):
            return f"it answers {answer!r:.80}, which is no {target.type}"
        if probability is None or not 0.0 <= probability <= 1.0:
            return f"its probability is {probability!r:.80}"
        given = probability
    if math.isclose(given, number, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        return ""
    return f"it answers {given:.6g}, and with the whole hold-out before it {number:.6g}"


def cannot_answer(version: ModelVersion) -> str:
    """Why a version could not answer the rows it was asked when it was trained; empty where it could."""
    checks = version.gate.get("checks", ())
    return next((each["message"] for each in checks if each["name"] == ANSWERS and not each["passed"]), "")


def require_answers(version: ModelVersion) -> None:
    """Raise `GateNotPassed` when a version cannot answer: no override makes up for that."""
    why = cannot_answer(version)
    if why:
        failed = [check for check in version.gate["checks"] if check["name"] == ANSWERS]
        raise GateNotPassed(f"{version} cannot be activated, not even by an override: {why}", details=failed)
