"""The gate's checks of an engine and of slices of the hold-out. No Django here.

`vigia_ml.evaluation.metrics.check_gate` adds them to the checks of the whole hold-out's metrics.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from vigia_ml.declaration import Gate
from vigia_ml.engines.latency import Latency
from vigia_ml.engines.selection import Choice
from vigia_ml.evaluation import Answers
from vigia_ml.evaluation.metrics import Check, compare, limit_of
from vigia_ml.evaluation.slices import Slice, slices, values


def engine_check(gate: Gate, choice: Choice) -> Check:
    """Returns the check ``parity``: a compiled engine gives the fitted pipeline's answers.

    scikit-learn passes without a comparison, unless the declaration requires a compiled engine.
    """
    parity = choice.parity
    worst = parity.worst if parity is not None else None
    tolerance = parity.tolerance if parity is not None else None
    if choice.engine != "sklearn":
        passed = parity is not None and parity.passed
        message = parity.reason if parity is not None else "the engine was not compared with scikit-learn"
        return Check("parity", worst, tolerance, passed, f"{choice.engine} serves it: {message}")
    if gate.engine and gate.engine != choice.engine:
        message = (
            f"the declaration requires the engine {gate.engine}; scikit-learn serves it: {choice.reason}"
        )
        return Check("parity", worst, tolerance, False, message)
    message = f"scikit-learn itself serves it, so no comparison is needed: {choice.reason}"
    return Check("parity", None, None, True, message)


def latency_check(gate: Gate, latency: Latency) -> Check:
    """Returns the check ``latency``: the median for one row."""
    passed = latency.median_ms <= gate.max_latency_ms
    message = (
        f"one row takes {latency.engine} {latency.median_ms:.3g} ms (median of {latency.calls} calls), "
        f"{'at most' if passed else 'more than'} the allowed {gate.max_latency_ms:g} ms"
    )
    return Check("latency", latency.median_ms, gate.max_latency_ms, passed, message)


def active_check(metric: str, active: float, dummy: float) -> Check:
    """Returns the check ``active_beats_baseline``, on the candidate's hold-out.

    It never fails, because new data may be beyond an old version; it warns, because wrong labels look alike.
    """
    check = compare("active_beats_baseline", metric, active, dummy, "the baseline's", strict=True)
    if check.passed:
        return replace(check, message=f"active version: {check.message}")
    message = (
        f"the active version's {metric} of {active:.4g} on this hold-out does not beat the baseline's "
        f"{dummy:.4g}: these rows contradict that version; check their labels before you activate this one"
    )
    return replace(check, passed=True, message=message, warning=True)


def slice_checks(gate: Gate, primary: str, features: Any, ours: Answers, theirs: Answers) -> list[Check]:
    """Returns the checks ``slice_…``: per level of each declared column, not much worse than the active
    version.

    A slice with too few rows is not judged and passes.

    Parameters
    ----------
    features : frame (n, p) of the hold-out. ours, theirs : answers of the candidate and of the active
        version.
    """
    metric = gate.slice_metric or primary
    columns = [name for name in gate.slices if name in features.columns]
    parts = slices(features, ours, columns, gate.slice_rows)
    mine, active = values(ours, parts).get(metric), values(theirs, parts).get(metric)
    if mine is None or active is None:
        return []
    return [
        _slice_check(metric, gate.slices[part.column], part, float(mine[at]), float(active[at]))
        for at, part in enumerate(parts)
    ]


def _slice_check(metric: str, allowed: float, part: Slice, mine: float, active: float) -> Check:
    name = f"slice_{part.column}:{part.level}"
    if part.reason:
        return Check(name, None, None, True, f"{part.name} is not judged: {part.reason}")
    if not (math.isfinite(mine) and math.isfinite(active)):
        return Check(name, None, None, True, f"{part.name} is not judged: {metric} is undefined there")
    limit, passed = limit_of(metric, mine, active, allowed)
    message = (
        f"{part.name}: {metric} {mine:.4g} over {part.rows:,} rows, the active version has {active:.4g}; "
        f"{'within' if passed else 'more than'} the allowed fall of {allowed:.0%}"
    )
    return Check(name, mine, limit, passed, message)
