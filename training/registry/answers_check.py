"""The gate's check that a candidate answers on the path of predictions, by JSON and by CSV.

That path belongs to an application above this one, which registers it here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from django.conf import settings
from django.utils.module_loading import import_string

from core.errors import GateNotPassed, NotCompiled
from training import artifacts
from training.models import ModelVersion
from vigia_ml.schema import Column, InvalidRows, Value

if TYPE_CHECKING:
    from training.serving.engine_cache import Served
    from vigia_ml.evaluation.metrics import Check

ANSWERS: Final = "answers"
"""Name of the check in the gate."""
ADVICE: Final = "; correct build() in the model's file"
OF_A_GRAPH: Final = "; correct the pipeline and push it again"
TOLERANCE: Final = 1e-4
"""Relative. This check finds different answers; `vigia_ml.engines.parity` compares digits."""

Ask = Callable[["Served", Sequence[Mapping[str, Value]]], Sequence[tuple[object, float | None]]]
"""Predicts valid rows as a client's request does and returns (prediction, probability) for each. Raises every
error, and `Unusable` for answers that a response cannot hold."""

Expected = tuple[tuple[object, ...], float]
"""Possible labels and their probability; without labels, a number."""

_PATHS: dict[str, str] = {}


class Unusable(ValueError):
    """An answer that a response cannot hold; the message gives the reason."""


def register(name: str, ask: str) -> None:
    """Registers a path of predictions.

    Parameters
    ----------
    name : the body's format, such as ``JSON``. ask : dotted path of an `Ask`.
    """
    _PATHS[name] = ask


def check(
    served: Served,
    rows: Sequence[Mapping[str, Value]],
    expected: Sequence[Expected],
    advice: str = ADVICE,
) -> Check:
    """Returns check ``answers``: by JSON and CSV, in one request and one by one, the candidate must answer
    hold-out rows as it did in its evaluation.

    Parameters
    ----------
    served : the candidate as a web process loads it. rows : rows of the hold-out.
    expected : the candidate's answers to these rows in its evaluation. advice : end of a failure's message.
    """
    from vigia_ml.evaluation.metrics import Check  # pandas and scikit-learn, which a job needs anyway

    together = tuple(range(len(rows)))
    for name, path in _PATHS.items():
        ask: Ask = import_string(path)
        for places in (together, *((place,) for place in together)):
            request = f"request by {name} with {len(places)} hold-out {'row' if len(places) == 1 else 'rows'}"
            try:
                answers = ask(served, [rows[place] for place in places])
            except Exception as error:  # every prediction would meet the same error
                message = f"{request}: the version does not answer: {_first_line(error)}{advice}"
                return Check(ANSWERS, None, None, False, message)
            for place, (answer, probability) in zip(places, answers, strict=True):
                difference = _difference(served.schema.target, answer, probability, *expected[place])
                if difference:
                    return Check(ANSWERS, None, None, False, f"{request}: {difference}{advice}")
    message = f"requests by {' and '.join(_PATHS)} with {len(rows)} hold-out rows give the evaluated answers"
    return Check(ANSWERS, None, None, True, message)


def _first_line(error: Exception) -> str:
    text = error.faults[0].message if isinstance(error, InvalidRows) and error.faults else str(error)
    return (text.splitlines() or [type(error).__name__])[0][:300]


def _difference(
    target: Column, answer: object, probability: float | None, labels: tuple[object, ...], number: float
) -> str:
    """Returns how an answer differs from the evaluated one; empty when they agree."""
    if target.is_numeric:
        if not isinstance(answer, (float, int)) or isinstance(answer, bool):
            return f"the version answers {answer!r:.80}, which is not a number"
        value = float(answer)
    else:
        if not any(answer == label and type(answer) is type(label) for label in labels):
            return f"the version answers {answer!r:.80} where the estimator answers {labels[0]!r:.80}"
        if isinstance(answer, bool) != (target.type == "boolean"):
            return f"the version answers {answer!r:.80}, which is not a {target.type}"
        if probability is None or not 0.0 <= probability <= 1.0:
            return f"its probability is {probability!r:.80}; a probability is between 0 and 1"
        value = probability
    if math.isclose(value, number, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        return ""
    return (
        f"the version answers {value:.6g}; in the evaluation of the whole hold-out it answered {number:.6g}"
    )


def cannot_answer(version: ModelVersion) -> str:
    """Returns the message of the failed check ``answers`` of a version; empty when the version can answer."""
    checks = version.gate.get("checks", ())
    return next((each["message"] for each in checks if each["name"] == ANSWERS and not each["passed"]), "")


def refused_by_installation(version: ModelVersion) -> bool:
    """Returns whether only scikit-learn can serve the version and the installation has COMPILED_ONLY."""
    return settings.COMPILED_ONLY and artifacts.needs_scikit_learn(version)


def require_served(version: ModelVersion) -> None:
    """Raises `NotCompiled` for a version that this installation refuses to serve."""
    if refused_by_installation(version):
        raise NotCompiled(
            f"scikit-learn serves {version}, and this installation serves compiled versions only "
            f"(COMPILED_ONLY): {version.engine_reason}"
        )


def require_gate(version: ModelVersion, *, override: bool) -> bool:
    """Returns whether the version passed its gate.

    Raises
    ------
    GateNotPassed : the version did not pass, and `override` is False. No override permits a version that
        cannot answer.
    """
    passed = bool(version.gate.get("passed"))
    failed = [each for each in version.gate.get("checks", []) if not each["passed"]]
    message = cannot_answer(version)
    if message:
        failed = [each for each in failed if each["name"] == ANSWERS]
        raise GateNotPassed(
            f"{version} cannot be activated, even with an override: {message}", details=failed
        )
    if not passed and not override:
        messages = "; ".join(each["message"] for each in failed) or "the version was not checked"
        raise GateNotPassed(f"{version} did not pass its gate: {messages}", details=failed)
    return passed
