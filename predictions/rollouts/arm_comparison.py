"""Compares the two arms of a rollout: the candidate and the active version.

The arms of a canary answered different clients, so they are two separate samples. A shadow answered the same
rows as the active version: one sample judged twice, which detects smaller differences. PostgreSQL aggregates
at most the newest `MOST_ROWS` rows of each arm, each with one look-up of its outcome.

The log does not hold the URL of a request: a client of the canary that also calls the candidate by its
version number counts with both kinds of requests.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Sum
from django.utils import timezone

from core.uuid7 import lowest_at
from predictions.models import ShadowTally
from predictions.quality import confidence_intervals
from predictions.quality import sql as quality_sql
from predictions.quality.confidence_intervals import Estimate
from predictions.rollouts import sql
from training.models import ModelVersion, Rollout
from training.serving import canary_assignment

MOST_ROWS: Final = 50_000


@dataclass(frozen=True, slots=True)
class Arm:
    """One version's figures.

    rows : rows read. outcomes : rows with an outcome; coverage is their share.
    metrics : name -> estimate over the rows with outcomes: accuracy and brier (of several classes over the
        rows that also have every class's probability), or mae and rmse; None without.
    mean : of the probability (classification) or of the answers (regression), over all rows.
    histogram : shares of the rows by bin of probability or answer.
    """

    version: int
    rows: int
    outcomes: int
    metrics: dict[str, Estimate | None]
    mean: Estimate | None
    histogram: list[float]

    @property
    def coverage(self) -> float | None:
        return self.outcomes / self.rows if self.rows else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both arms of a rollout.

    active : None if no version was active when the rollout began. tried : the candidate.
    differences : name of a metric, or "mean" -> tried minus active.
    agreement, gap : only of a shadow, on the same rows: the share of equal answers (classification), and the
        mean absolute difference of probabilities or answers.
    edges : edges of the histograms' bins, one more than bins. bound : maximum rows of an arm, newest first.
    """

    kind: str
    task: str
    active: Arm | None
    tried: Arm
    differences: dict[str, Estimate | None]
    agreement: Estimate | None
    gap: Estimate | None
    edges: list[float]
    bound: int

    @property
    def arms(self) -> list[Arm]:
        return [arm for arm in (self.active, self.tried) if arm is not None]


def compare(rollout: Rollout) -> Comparison:
    """Compares the arms from the rollout's start to its end, or to now while it runs."""
    version, active = rollout.version, compared_with(rollout)
    positive = quality_sql.positive(version)
    kind: sql.Kind = "numbers" if "rmse" in version.metrics else "several" if positive is None else "two"
    classifies = kind != "numbers"
    classes, others_classes = (
        json.dumps(each.known_classes if each is not None else None) for each in (version, active)
    )
    shared = {
        "since": lowest_at(rollout.started_at),
        "until": lowest_at(rollout.stopped_at or timezone.now() + dt.timedelta(minutes=1)),
        "most": MOST_ROWS,
        "positive": positive,
        "rollout": rollout.pk,
        "version": str(version.pk),
        "threshold": canary_assignment.threshold(rollout.percent or 0.0).to_bytes(9),
    }
    is_paired = rollout.kind == Rollout.Kind.SHADOW
    if is_paired:
        numbers = [version.number, active.number if active is not None else 0]
        arms = [
            (sql.TRIED, shared | {"classes": classes}),
            (sql.PAIRED, shared | {"classes": others_classes}),
        ]
    else:
        numbers = [version.number, *([active.number] if active is not None else [])]
        arms = [(sql.SEPARATE, shared | {"arm": version.pk, "inside": True, "classes": classes})]
        if active is not None:
            inside = {"arm": active.pk, "inside": False, "classes": others_classes}
            arms.append((sql.SEPARATE, shared | inside))
    edges = sql.bin_edges(arms, classifies)
    sums = [_figures(rows, parameters, kind, edges) for rows, parameters in arms]
    metrics = ("accuracy", "brier") if classifies else ("mae", "rmse")
    tried, *others = [_arm(number, each, metrics) for number, each in zip(numbers, sums, strict=True)]
    agreement = gap = None
    differences: dict[str, Estimate | None] = {}
    if is_paired:
        totals = _paired(shared | {"classes1": classes, "classes2": others_classes}, kind)
        differences = _paired_differences(totals, metrics)
        agreement = confidence_intervals.share(totals["agreed"], totals["rows"]) if classifies else None
        gap = _mean(totals, "gap", totals["rows"])
    elif others:
        differences = _differences(tried, others[0], *sums)
    return Comparison(
        rollout.kind,
        "classification" if classifies else "regression",
        others[0] if others else None,
        tried,
        differences,
        agreement,
        gap,
        edges,
        MOST_ROWS,
    )


def compared_with(rollout: Rollout) -> ModelVersion | None:
    """Returns the version that was active during the rollout, which the next activation ends."""
    before = rollout.registered_model.activations.filter(at__lte=rollout.started_at).select_related("version")
    activation = before.first()
    return activation.version if activation is not None else None


def tallies(rollout: Rollout) -> dict[str, int]:
    """Returns the rows that a shadow answered, dropped and failed. For a canary, `failed` counts the rows
    that the active version answered because the canary could not be loaded."""
    names = ("answered", "dropped", "failed")
    sums = ShadowTally.objects.filter(rollout=rollout).aggregate(**{name: Sum(name) for name in names})
    return {name: sums[name] or 0 for name in names}


def _figures(rows: str, parameters: dict[str, Any], kind: sql.Kind, edges: list[float]) -> dict[str, Any]:
    """Returns the sums over an arm's rows."""
    statement = f"""
        SELECT count(*) AS rows, count(actual) AS known,
            count(*) FILTER (WHERE actual = prediction) AS accuracy,
            {sql.moments("mean", "value")}, {sql.moments("brier", "loss")}, count(loss) AS brier_rows,
            {sql.moments("mae", "abs(error)")}, {sql.moments("rmse", "error ^ 2")},
            {sql.bin_counts("value", edges)} AS bins
        FROM (SELECT *, {sql.columns(kind)} FROM ({rows}) judged) judged
    """  # noqa: S608 - constants alone
    return sql.only_row(statement, parameters)


def _arm(number: int, sums: dict[str, Any], metrics: Iterable[str]) -> Arm:
    known = sums["known"]
    estimates = {name: _METRICS[name](sums, name, known) for name in metrics}
    mean = _mean(sums, "mean", sums["rows"])
    return Arm(number, sums["rows"], known, estimates, mean, sql.shares_of(sums["bins"]))


def _share(sums: dict[str, Any], name: str, rows: int) -> Estimate | None:
    return confidence_intervals.share(sums[name], rows)


def _mean(sums: dict[str, Any], name: str, rows: int) -> Estimate | None:
    return confidence_intervals.mean(sums[name], sums[f"{name}_deviation"], rows)


def _brier(sums: dict[str, Any], name: str, rows: int) -> Estimate | None:
    return _mean(sums, name, sums[f"{name}_rows"])


def _root(sums: dict[str, Any], name: str, rows: int) -> Estimate | None:
    return confidence_intervals.root_of_mean(sums[name], sums[f"{name}_deviation"], rows)


_METRICS: Final = {"accuracy": _share, "brier": _brier, "mae": _mean, "rmse": _root}


def _differences(
    tried: Arm, active: Arm, tried_sums: dict[str, Any], active_sums: dict[str, Any]
) -> dict[str, Estimate | None]:
    """Returns the differences of two separate samples."""
    differences = {
        name: confidence_intervals.difference(metric, active.metrics[name])
        for name, metric in tried.metrics.items()
    }
    if "accuracy" in differences:
        differences["accuracy"] = confidence_intervals.share_difference(
            tried_sums["accuracy"], tried_sums["known"], active_sums["accuracy"], active_sums["known"]
        )
    return differences | {"mean": confidence_intervals.difference(tried.mean, active.mean)}


# -- one sample judged twice -----------------------------------------------------------------------------


def _paired(parameters: dict[str, Any], kind: sql.Kind) -> dict[str, Any]:
    """Returns the sums over pairs of answers; 1 is the candidate's answer, 2 the active version's."""
    both = f"{sql.columns(kind, '1', 'tried_')}, {sql.columns(kind, '2')}"
    return sql.only_row(
        f"""
        SELECT count(*) AS rows, count(actual) AS known,
            count(*) FILTER (WHERE tried_prediction = prediction) AS agreed,
            count(*) FILTER (WHERE tried_prediction = actual AND prediction <> actual) AS only_tried,
            count(*) FILTER (WHERE prediction = actual AND tried_prediction <> actual) AS only_active,
            {sql.moments("gap", "abs(value1 - value2)")}, {sql.moments("mean", "value1 - value2")},
            {sql.moments("brier", "loss1 - loss2")}, count(loss1 - loss2) AS brier_rows,
            {sql.moments("mae", "abs(error1) - abs(error2)")},
            avg(error1 ^ 2) AS mse1, avg(error2 ^ 2) AS mse2,
            var_samp(error1 ^ 2) AS var1, var_samp(error2 ^ 2) AS var2,
            covar_samp(error1 ^ 2, error2 ^ 2) AS covariance
        FROM (SELECT *, {both} FROM ({sql.PAIRED}) pair) pair
        """,  # noqa: S608 - constants alone
        parameters,
    )


def _paired_differences(sums: dict[str, Any], metrics: Iterable[str]) -> dict[str, Estimate | None]:
    known = sums["known"]
    differences: dict[str, Estimate | None] = {}
    for name in metrics:
        if name == "accuracy":
            differences[name] = confidence_intervals.paired_share_difference(
                sums["only_tried"], sums["only_active"], known
            )
        else:
            differences[name] = (
                _paired_rmse(sums, known) if name == "rmse" else _METRICS[name](sums, name, known)
            )
    return differences | {"mean": _mean(sums, "mean", sums["rows"])}


def _paired_rmse(sums: dict[str, Any], known: int) -> Estimate | None:
    """Returns sqrt(m1) - sqrt(m2) of two means over the same rows, by the delta method with the gradient
    (1 / (2 sqrt(m1)), -1 / (2 sqrt(m2)))."""
    if not known or sums["mse1"] is None:
        return None
    roots = sums["mse1"] ** 0.5, sums["mse2"] ** 0.5
    value = roots[0] - roots[1]
    if not all(roots) or sums["var1"] is None:
        return Estimate(value, None, None, known)
    first, second = 1 / (2 * roots[0]), 1 / (2 * roots[1])
    variance = sums["var1"] * first**2 + sums["var2"] * second**2 - 2 * sums["covariance"] * first * second
    return confidence_intervals.estimate(value, max(variance / known, 0.0) ** 0.5, known)
