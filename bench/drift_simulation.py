"""False alarms and power of a drift review: `make drift-simulation`, which writes to docs/drift.md.

Every repetition draws its own reference, windows without drift and windows with a known shift, and reviews
them as the log is reviewed. The simulation needs no database.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from predictions.replays.distributions import psi as usual_psi
from vigia_ml.bins import Bins
from vigia_ml.declaration import MonitoringConfig
from vigia_ml.drift.bin_counts import Counted
from vigia_ml.drift.verdicts import DRIFT, NOTICE, Finding, Reviewed, compared, judged, review
from vigia_ml.evaluation import Answers
from vigia_ml.reference_profile import PREDICTION, PROBABILITY, Profile, of_answers, of_column
from vigia_ml.schema import Column

PAGE = Path(__file__).resolve().parent.parent / "docs" / "drift.md"
BEGIN, END = "<!-- simulation:begin -->", "<!-- simulation:end -->"
REPETITIONS = int(os.environ.get("DRIFT_REPETITIONS", "2000"))
SEED = 5
SIZES = (50, 100, 200, 500, 1_000, 5_000)
REFERENCE, HELD = 5_000, 1_000
LARGE, LARGE_REPETITIONS = 100_000, 100
SHIFT, SMALL_SHIFT = 0.5, 0.02

Drawn = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Simulated:
    """A column and the function that draws its values: numbers (n,), or positions of levels (n,)."""

    column: Column
    draw: Callable[[np.random.Generator, int], Drawn]
    levels: tuple[str, ...] = ()


def _zipf(size: int, power: float) -> Drawn:
    weights = 1.0 / np.arange(1, size + 1) ** power
    return np.asarray(weights / weights.sum())


def _levels(name: str, shares: Drawn) -> Simulated:
    levels = tuple(f"level {number}" for number in range(len(shares)))
    return Simulated(
        Column(name, "category"), lambda rng, n: rng.choice(len(shares), size=n, p=shares), levels
    )


def _with_gaps(rng: np.random.Generator, n: int) -> Drawn:
    return np.where(rng.random(n) < 0.05, np.nan, rng.normal(size=n))


def _zeros(share: float) -> Callable[[np.random.Generator, int], Drawn]:
    return lambda rng, n: np.where(rng.random(n) < share, 0.0, rng.exponential(size=n))


CODES = np.array([200.0, 204.0, 301.0, 404.0, 429.0, 500.0])
CODE_SHARES = np.array([0.5, 0.2, 0.12, 0.08, 0.06, 0.04])
MANY_CODES = 1_000.0 + 10 * np.arange(40)

COLUMNS = (
    *(Simulated(Column(f"normal {k}", "number"), lambda rng, n: rng.normal(size=n)) for k in range(5)),
    Simulated(Column("normal, 5 % missing", "number", nullable=True), _with_gaps),
    Simulated(Column("skewed", "number"), lambda rng, n: rng.lognormal(size=n)),
    *(
        Simulated(
            Column(f"count of mean {k}", "integer"), lambda rng, n, k=k: rng.poisson(k, n).astype(float)
        )
        for k in (1, 12)
    ),
    Simulated(Column("a third zero", "number"), _zeros(1 / 3)),
    Simulated(Column("95 % zero", "number"), _zeros(0.95)),
    Simulated(Column("a fifth at the limit", "number"), lambda rng, n: np.minimum(rng.normal(size=n), 0.84)),
    Simulated(Column("in steps of 0.5", "number"), lambda rng, n: np.round(2 * rng.normal(size=n)) / 2),
    Simulated(Column("6 codes", "integer"), lambda rng, n: rng.choice(CODES, n, p=CODE_SHARES)),
    Simulated(Column("40 codes", "integer"), lambda rng, n: rng.choice(MANY_CODES, n, p=_zipf(40, 1.2))),
    Simulated(Column("flag, 3 %", "integer"), lambda rng, n: (rng.random(n) < 0.03).astype(float)),
    _levels("5 levels", np.array([0.4, 0.3, 0.15, 0.1, 0.05])),
    _levels("12 levels, some rare", _zipf(12, 1.5)),
    _levels("30 levels, most rare", _zipf(30, 1.5)),
    _levels("80 levels, most rare", _zipf(80, 1.2)),
)
assert len(COLUMNS) == 20

Rows = Mapping[str, Drawn]


def drawn(rng: np.random.Generator, rows: int) -> dict[str, Drawn]:
    return {each.column.name: each.draw(rng, rows) for each in COLUMNS}


def probability(rows: Rows) -> Drawn:
    """Returns the probabilities of a model that reads three of the columns."""
    score = 0.8 * rows["normal 0"] + 0.5 * rows["normal 1"] + 0.4 * np.log(rows["skewed"]) - 0.5
    return np.asarray(1.0 / (1.0 + np.exp(-score)))


def reference(rng: np.random.Generator, rows: int = REFERENCE, held: int = HELD) -> Profile:
    """Returns the profile of a training part and of the answers to a hold-out."""
    training = drawn(rng, rows)
    columns = tuple(
        of_column(
            each.column,
            np.array(each.levels, dtype=object)[training[each.column.name]]
            if each.levels
            else training[each.column.name],
        )
        for each in COLUMNS
    )
    score = probability(drawn(rng, held))
    answers = Answers(
        "binary", rng.random(held) < score, 0.5, (False, True), np.column_stack([1 - score, score])
    )
    return Profile(columns, of_answers(answers))


def counted(profile: Profile, rows: Rows) -> dict[str, Counted]:
    """Returns the counts that rollups would hold of these rows."""
    known = profile.by_name
    counts = {}
    for each in COLUMNS:
        values, bins = rows[each.column.name], known[each.column.name].bins
        if each.levels:
            counts[each.column.name] = _of_levels(bins, each.levels, values)
        else:
            counts[each.column.name] = _of_numbers(bins, values)
    score = probability(rows)
    counts[PROBABILITY] = _of_numbers(known[PROBABILITY].bins, score)
    predictions = _of_levels(known[PREDICTION].bins, ("false", "true"), (score >= 0.5).astype(np.int64))
    return counts | {PREDICTION: predictions}


def _of_numbers(bins: Bins, values: Drawn) -> Counted:
    places = bins.of_numbers(values)
    totals = np.bincount(places, weights=np.nan_to_num(values), minlength=bins.size)
    return Counted(np.bincount(places, minlength=bins.size), totals)


def _of_levels(bins: Bins, levels: Sequence[str], values: Drawn) -> Counted:
    places = bins.of_levels(levels)[values]
    return Counted(np.bincount(places, minlength=bins.size), np.zeros(bins.size))


# -- rules ---------------------------------------------------------------------------------------------


def ours(reviewed: Reviewed) -> bool:
    return any(each.verdict == DRIFT for each in reviewed.findings)


def ours_or_notice(reviewed: Reviewed) -> bool:
    return any(each.verdict in (DRIFT, NOTICE) for each in reviewed.findings)


def fixed(least: float) -> Callable[[Reviewed], bool]:
    """Returns the usual rule: the PSI over deciles with open ends exceeds a fixed value in some column."""
    return lambda reviewed: any(_usual(each) > least for each in reviewed.findings)


def p_value(reviewed: Reviewed) -> bool:
    return any(each.p_value is not None and each.p_value < 0.05 for each in reviewed.findings)


def _usual(finding: Finding) -> float:
    before, after = (np.array(finding.bins[side]) for side in ("reference", "window"))
    outside = [at for at, apart in enumerate(finding.bins["apart"]) if apart == "outside"]
    if len(outside) == 2 and outside[1] > 2:
        low, high = outside
        for side in (before, after):
            side[low + 1] += side[low]
            side[high - 1] += side[high]
        before, after = (np.delete(side, outside) for side in (before, after))
    return usual_psi(before, after) or 0.0


RULES: dict[str, Callable[[Reviewed], bool]] = {
    "drift": ours,
    "drift or notice": ours_or_notice,
    "PSI > 0.1": fixed(0.1),
    "PSI > 0.2": fixed(0.2),
    "PSI > 0.25": fixed(0.25),
    "p < 0.05": p_value,
}


# -- runs ----------------------------------------------------------------------------------------------


@dataclass
class SimulationCounts:
    """Counts of the simulation. repetitions : per size. alarms : (rule, rows) -> windows without drift that
    the rule flags. found : (change, rows) -> windows in which the review finds drift in the changed
    column."""

    repetitions: int
    alarms: Counter[tuple[str, int]] = field(default_factory=Counter)
    found: Counter[tuple[str, int]] = field(default_factory=Counter)

    def alarm(self, rule: str, rows: int) -> float:
        return self.alarms[rule, rows] / self.repetitions

    def power(self, change: str, rows: int) -> float:
        return self.found[change, rows] / self.repetitions


def _new_codes(values: Drawn, codes: Drawn) -> Drawn:
    """Replaces every second code by a new code between known codes."""
    return np.where(np.isin(values, codes[1::2]), values - 1, values)


@dataclass(frozen=True)
class Change:
    """A change of one column. The model does not read that column, so no other column changes."""

    column: str
    of: Callable[[np.random.Generator, Drawn], Drawn]


def _without_zeros(rng: np.random.Generator, values: Drawn) -> Drawn:
    return np.where(values == 0, rng.exponential(size=len(values)), values)


CHANGES = {
    f"moved by {SHIFT:g} standard deviations": Change("normal 4", lambda rng, values: values + SHIFT),
    "all zeros gone, of 95 %": Change("95 % zero", _without_zeros),
    "all zeros gone, of a third": Change("a third zero", _without_zeros),
    "half the codes new, of 6": Change("6 codes", lambda rng, values: _new_codes(values, CODES)),
    "half the codes new, of 40": Change("40 codes", lambda rng, values: _new_codes(values, MANY_CODES)),
}


def repeated(repetitions: int, sizes: Sequence[int] = SIZES, *, say: bool = False) -> SimulationCounts:
    """Simulates windows of each size without drift, and the same windows with one column changed."""
    counts, monitoring = SimulationCounts(repetitions), MonitoringConfig()
    for repetition in range(repetitions):
        rng = np.random.default_rng([SEED, repetition])
        profile = reference(rng)
        for rows in sizes:
            clean = drawn(rng, rows)
            reviewed = review(profile, counted(profile, clean), monitoring)
            for name, rule in RULES.items():
                counts.alarms[name, rows] += rule(reviewed)
            for name, change in CHANGES.items():
                values = change.of(rng, clean[change.column])
                counts.found[name, rows] += _is_found(profile, reviewed, change.column, values, monitoring)
        if say and repetition % 100 == 99:
            sys.stderr.write(f"{repetition + 1} of {repetitions}\n")
    return counts


def _is_found(
    profile: Profile, reviewed: Reviewed, name: str, values: Drawn, monitoring: MonitoringConfig
) -> bool:
    """Returns whether the review finds drift in a column with these values and all other columns
    unchanged."""
    column = profile.by_name[name]
    moved = compared(column, _of_numbers(column.bins, values), monitoring)
    after = judged([moved if each.column == name else each for each in reviewed.findings], monitoring)
    return any(each.column == name and each.verdict == DRIFT for each in after.findings)


def large(repetitions: int, rows: int = LARGE) -> dict[str, float]:
    """Returns rule -> share of the large windows that it flags after a very small shift of the normal
    columns."""
    flagged = dict.fromkeys(RULES, 0)
    for repetition in range(repetitions):
        rng = np.random.default_rng([SEED, 1, repetition])
        profile = reference(rng, rows, HELD)
        values = drawn(rng, rows)
        moved = values | {f"normal {k}": values[f"normal {k}"] + SMALL_SHIFT for k in range(5)}
        reviewed = review(profile, counted(profile, moved), MonitoringConfig())
        for name, rule in RULES.items():
            flagged[name] += rule(reviewed)
    return {name: times / repetitions for name, times in flagged.items()}


# -- the page ------------------------------------------------------------------------------------------


def table(counts: SimulationCounts, far: Mapping[str, float], sizes: Sequence[int] = SIZES) -> Iterator[str]:
    yield (
        f"{counts.repetitions:,} repetitions of each size, {LARGE_REPETITIONS} of the large windows, seed "
        f"{SEED}; references of {REFERENCE:,} rows, and of {HELD:,} for the answers."
    )
    yield ""
    heads = [f"{rows:,} rows" for rows in sizes]
    yield f"| windows without drift: some alarm | {' | '.join(heads)} |"
    yield f"|---|{'--:|' * len(sizes)}"
    for rule in RULES:
        cells = " | ".join(_percent(counts.alarm(rule, rows)) for rows in sizes)
        yield f"| {_ROW[rule]} | {cells} |"
    yield ""
    yield f"| one column of 20 changed: Vigía calls that column `drift` | {' | '.join(heads)} |"
    yield f"|---|{'--:|' * len(sizes)}"
    for change in CHANGES:
        yield f"| {change} | {' | '.join(_percent(counts.power(change, rows)) for rows in sizes)} |"
    yield ""
    yield f"| {LARGE:,} rows, five columns moved by {SMALL_SHIFT:g} standard deviations | some alarm |"
    yield "|---|--:|"
    for rule in RULES:
        yield f"| {_ROW[rule]} | {_percent(far[rule])} |"


_ROW = {
    "drift": "**Vigía: `drift`**",
    "drift or notice": "Vigía: `drift` or `notice`",
    "PSI > 0.1": "PSI above 0.1",
    "PSI > 0.2": "PSI above 0.2",
    "PSI > 0.25": "PSI above 0.25",
    "p < 0.05": "p-value below 0.05 in each column",
}


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main() -> None:
    started = time.monotonic()
    lines = "\n".join(table(repeated(REPETITIONS, say=True), large(LARGE_REPETITIONS)))
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{lines}\n{END}{after}", encoding="utf-8")
    sys.stderr.write(f"{lines}\nwritten to {PAGE} after {time.monotonic() - started:.0f} s\n")


if __name__ == "__main__":
    main()
