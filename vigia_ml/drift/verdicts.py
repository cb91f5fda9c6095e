"""Drift verdicts on each column and on the model, from a window's counts. No Django here.

A column has drifted when its change is more than chance (its p-value, corrected for the number of columns
tested together) AND large (its adjusted population stability index). Either criterion alone gives false
alarms: the index on small windows, the p-value on large ones. docs/drift.md has the simulation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from vigia_ml.declaration import MonitoringConfig
from vigia_ml.drift import statistics
from vigia_ml.drift.bin_counts import Counted, Whole
from vigia_ml.reference_profile import PREDICTION, PROBABILITY, ColumnProfile, Profile

DRIFT: Final = "drift"
NOTICE: Final = "notice"
STABLE: Final = "stable"
INSUFFICIENT: Final = "insufficient"
ANSWERS: Final = {PREDICTION: "the prediction", PROBABILITY: "the probability"}
OLD_MEANING: Final = (
    "The reference profile is older than bins of single values: a new value between two known ones counts as "
    "the lower one, and a fall of a frequent value may go unnoticed. A new version detects both."
)
FORWARD: Final = 0.95
"""Share of a column's dates that are later than all training rows, from which the column moves with time."""
NAMED: Final = 6
"""Most columns that a reason names; it counts the others."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Statistics and verdict of one column or of the predictions.

    `vigia_ml.drift.statistics` describes the statistics; they are None where they are undefined.

    importance : the column's share of the importance of all columns, 0 to 1; None where it is unknown, and
        for predictions.
    missing, unseen, outside : shares of the window's rows: without a value; at a level or a value that no
        training row had; outside the training range. None where the column has no such bin.
    reference_missing : share of the reference's rows without a value.
    bins : ``labels``; each bin's kind, ``apart`` (`vigia_ml.reference_profile.ColumnProfile.apart`); the
        rows of each bin in the ``reference`` and in the ``window``.
    """

    column: str
    kind: str
    verdict: str
    importance: float | None
    rows: int
    reference_rows: int
    psi: float | None = None
    adjusted_psi: float | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    ks: float | None = None
    chi_square_p_value: float | None = None
    jensen_shannon: float | None = None
    wasserstein: float | None = None
    missing: float | None = None
    reference_missing: float | None = None
    unseen: float | None = None
    outside: float | None = None
    bins: Mapping[str, Any] = field(default_factory=dict)

    @property
    def moves_forward(self) -> bool:
        """Whether nearly all dates of the window are later than all training rows, as time passes."""
        outside = [at for at, apart in enumerate(self.bins.get("apart", ())) if apart == "outside"]
        if self.kind not in ("date", "time") or not outside:
            return False
        dates: list[int] = self.bins["window"][:-1]  # without the missing ones
        return sum(dates) > 0 and dates[outside[-1]] >= FORWARD * sum(dates)


@dataclass(frozen=True, slots=True)
class Reviewed:
    """Result of a drift review.

    verdict : the model's verdict. reason : sentences for people. findings : the schema's columns in their
    order, then the predictions.
    """

    verdict: str
    reason: str
    findings: tuple[Finding, ...]


def review(
    profile: Profile,
    window: Mapping[str, Counted],
    watch: MonitoringConfig,
    importance: Mapping[str, float] | None = None,
) -> Reviewed:
    """Compares a window of the log with the reference profile.

    Parameters
    ----------
    window : name in `Profile.by_name` -> counts; an absent name has no rows.
    importance : column -> loss of the primary metric with the column shuffled; a negative loss counts as 0.

    All columns and the predictions are one family for Benjamini and Hochberg's correction, because people
    read a review, and count its false alarms, as a whole.
    """
    shares = _importance_shares(profile, importance)
    columns = (*profile.columns, *profile.answers)

    def finding_of(column: ColumnProfile, draws: int) -> Finding:
        importance = shares.get(column.name)
        return compared(column, window.get(column.name), watch, importance=importance, draws=draws)

    draws = statistics.DRAWS
    findings = [finding_of(each, draws) for each in columns]
    while (more := _draws_needed(findings, draws, watch)) > draws:
        findings = [
            finding_of(column, more) if earlier.p_value == 1 / (draws + 1) else earlier
            for column, earlier in zip(columns, findings, strict=True)
        ]
        draws = more
    reviewed = judged(findings, watch)
    if profile.in_old_meaning:
        return replace(reviewed, reason=f"{reviewed.reason} {OLD_MEANING}")
    return reviewed


def _draws_needed(findings: Sequence[Finding], draws: int, watch: MonitoringConfig) -> int:
    """Returns the draws with which p-values that no draw reached can be as small as the correction requires.

    Where k of m columns share the smallest p-value, the correction requires that it be at most k/m of the
    significance: the fewer the columns, the more draws. So all columns together cost about as much as one.
    """
    least = 1 / (draws + 1)
    p_values = [each.p_value for each in findings if each.p_value is not None]
    if least not in p_values:
        return draws
    smallest = sum(p_value <= least for p_value in p_values)
    needed = 2 * len(p_values) / (max(watch.significance, 1e-9) * smallest)
    return min(max(math.ceil(needed), 2 * draws), statistics.MOST_DRAWS) if needed > draws else draws


def _importance_shares(profile: Profile, importance: Mapping[str, float] | None) -> dict[str, float]:
    """Returns column -> share of all importance; empty when the importance is unknown."""
    losses = {each.name: max(0.0, (importance or {}).get(each.name) or 0.0) for each in profile.columns}
    total = sum(losses.values())
    return {name: loss / total for name, loss in losses.items()} if total > 0 else {}


# -- columns -------------------------------------------------------------------------------------------


def compared(
    column: ColumnProfile,
    counted: Counted | None,
    watch: MonitoringConfig,
    *,
    importance: float | None = None,
    draws: int = statistics.DRAWS,
) -> Finding:
    """Compares one column by itself.

    The verdict is INSUFFICIENT or, until `judged` tests all columns together, STABLE.
    """
    bins = column.bins
    reference = np.asarray(column.counts, dtype=np.int64)
    counted = counted or Counted(np.zeros(bins.size, dtype=np.int64), np.zeros(bins.size))
    counts = np.asarray(counted.counts, dtype=np.int64)
    if len(counts) != bins.size:
        raise ValueError(f"{column.name}: the window has {len(counts)} bins, the reference has {bins.size}")
    finding = Finding(
        column=column.name,
        kind=bins.kind,
        verdict=INSUFFICIENT,
        importance=importance,
        rows=counted.rows,
        reference_rows=column.rows,
        bins={
            "labels": list(bins.labels),
            "apart": list(column.apart),
            "reference": reference.tolist(),
            "window": counts.tolist(),
        },
        **_shares(column, reference, counts),
    )
    if counted.rows < max(watch.minimum_rows, 1) or not column.rows:
        return finding
    readings: dict[str, Any] = {
        "psi": statistics.psi(reference, counts),
        "adjusted_psi": statistics.adjusted_psi(reference, counts),
        "p_value": statistics.psi_p_value(
            _with_room(column, reference, counts), counts, name=column.name, draws=draws
        ),
        "jensen_shannon": statistics.jensen_shannon(reference, counts),
    }
    if bins.kind == "level":
        readings["chi_square_p_value"] = statistics.chi_square_p_value(reference, counts)
    else:
        unseen = bins.unseen
        rows = int(counts[unseen]) if unseen is not None else 0
        # Without the bin of missing values.
        there = bins.ascending(float(counted.totals[unseen]) / rows if rows else 0.0)
        readings["ks"] = statistics.kolmogorov_smirnov(reference[there], counts[there])
        readings["wasserstein"] = statistics.wasserstein(
            reference[there],
            np.asarray(column.sums, dtype=np.float64)[there],
            counts[there],
            np.asarray(counted.totals, dtype=np.float64)[there],
            column.deviation,
        )
    return replace(finding, verdict=STABLE, **readings)


def _with_room(column: ColumnProfile, reference: Whole, counts: Whole) -> Whole:
    """Returns the reference with rows added to its outside and unseen bins that the window has rows in.

    These bins are empty by construction: the reference's own rows define range and values. A further row
    falls beyond the largest of m with probability 1/(m + 1) (Wilks, Annals of Mathematical Statistics 12
    (1941), 91), as if one of the m lay there. It has a new value about as often as one of the m was alone
    with its value (Good, Biometrika 40 (1953), 237). Without the added rows, windows without drift would be
    called significant too often.
    """
    room = reference.copy()
    for place, apart in enumerate(column.apart):
        if counts[place] and apart in ("outside", "unseen"):
            room[place] += max(1, column.lone if place == column.bins.unseen else 0)
    return room


def _shares(column: ColumnProfile, reference: Whole, counts: Whole) -> dict[str, Any]:
    bins = column.bins
    rows = int(counts.sum())
    shares: dict[str, Any] = {
        "reference_missing": column.counts[bins.missing] / column.rows if column.rows else None
    }
    if not rows:
        return shares
    shares["missing"] = int(counts[bins.missing]) / rows
    if bins.kind == "level":
        there = slice(bins.missing)
        shares["unseen"] = int(counts[there][reference[there] == 0].sum()) / rows
        return shares
    apart = np.array(column.apart)
    for name in ("unseen", "outside"):
        if name in apart:
            shares[name] = int(counts[apart == name].sum()) / rows
    return shares


def judged(per_column: Sequence[Finding], watch: MonitoringConfig) -> Reviewed:
    """Judges all columns and predictions together, and the model."""
    tested = [each for each in per_column if each.p_value is not None]
    adjusted = statistics.benjamini_hochberg(np.array([each.p_value for each in tested], dtype=np.float64))
    by_column = {each.column: float(p) for each, p in zip(tested, adjusted, strict=True)}
    findings = tuple(
        replace(each, adjusted_p_value=p, verdict=_verdict(each, p, watch))
        if (p := by_column.get(each.column)) is not None
        else each
        for each in per_column
    )
    verdict, reason = _of_model(findings, watch)
    return Reviewed(verdict, reason, findings)


def _verdict(finding: Finding, p_value: float, watch: MonitoringConfig) -> str:
    if p_value > watch.significance:
        return STABLE
    assert finding.adjusted_psi is not None
    if finding.moves_forward:
        return NOTICE
    return DRIFT if finding.adjusted_psi >= watch.psi else NOTICE


# -- the model -----------------------------------------------------------------------------------------


def _of_model(findings: Sequence[Finding], watch: MonitoringConfig) -> tuple[str, str]:
    """Returns the model's verdict and the reason.

    Drift of the predictions is drift of the model, because they weigh the columns as the model does. Drift of
    columns counts if their importance, where it is known, is large enough.
    """
    if all(each.verdict == INSUFFICIENT for each in findings):
        rows = max((each.rows for each in findings), default=0)
        return INSUFFICIENT, f"The window has {rows:,} rows; a verdict needs {max(watch.minimum_rows, 1):,}."
    columns = [each for each in findings if each.column not in ANSWERS]
    known = any(each.importance is not None for each in columns)
    drifted = [each for each in columns if each.verdict == DRIFT]
    moved = [each for each in findings if each.column in ANSWERS and each.verdict == DRIFT]
    noticed = [each for each in findings if each.verdict == NOTICE]
    small = [each for each in noticed if not each.moves_forward]
    forward = [each for each in noticed if each.moves_forward]
    share = sum(each.importance or 0.0 for each in drifted)
    matters = bool(drifted) and (share >= watch.share or not known)
    sentences = []
    if moved:
        sentences.append(f"The predictions have drifted ({_named(moved)}).")
    if drifted:
        weight = f", with {_percent(share)} of the importance of all columns" if known else ""
        light = "" if matters else f", less than the {_percent(watch.share)} that count as drift of the model"
        sentences.append(f"Drift in {_named(drifted)}{weight}{light}.")
    if small:
        sentences.append(f"Small but significant changes in {_named(small)}.")
    if forward:
        sentences.append(
            f"At least {_percent(FORWARD)} of the dates in {_named(forward)} are later than all training "
            "rows: time passes, so this is no drift."
        )
    if moved or matters:
        return DRIFT, " ".join(sentences)
    if drifted or noticed:
        return NOTICE, " ".join(sentences)
    return STABLE, "No column and no prediction differs from the reference by more than chance."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _named(findings: Sequence[Finding]) -> str:
    """Returns the names as text, the largest changes first."""
    order = sorted(findings, key=lambda each: -(each.adjusted_psi or 0.0))
    names = [ANSWERS.get(each.column, each.column) for each in order]
    if len(names) > NAMED:
        names = [*names[: NAMED - 1], f"{len(names) - NAMED + 1} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
