"""Compares the two arms of a rollout: the candidate and the active version.

The arms of a canary answered different clients, so they are two separate samples. A shadow answered the same
rows as the active version: one sample judged twice, which detects smaller differences. PostgreSQL aggregates
at most the newest `MOST_ROWS` rows of each arm, each with one look-up of its outcome.

The log does not hold the URL of a request: a client of the canary that also calls the candidate by its
version number counts with both kinds of requests.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass
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
    metrics : name -> estimate over the rows with outcomes: accuracy and brier, or mae and rmse; None without.
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

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields in JSON's types."""
        plain = asdict(self)
        for name in ("active", "tried"):
            arm: Arm | None = getattr(self, name)
            if arm is not None:
                plain[name] |= {"coverage": arm.coverage, "mean": _plain(arm.mean)}
                plain[name]["metrics"] = {key: _plain(estimate) for key, estimate in arm.metrics.items()}
        plain["differences"] = {key: _plain(estimate) for key, estimate in self.differences.items()}
        return plain | {"agreement": _plain(self.agreement), "gap": _plain(self.gap)}


def compare(rollout: Rollout) -> Comparison:
    """Compares the arms from the rollout's start to its end, or to now while it runs."""
    version = rollout.version
    active = compared_with(rollout)
    classifies = "rmse" not in version.metrics
    positive = quality_sql.positive(version)
    window = {
        "since": lowest_at(rollout.started_at),
        "until": lowest_at(rollout.stopped_at or timezone.now() + dt.timedelta(minutes=1)),
        "most": MOST_ROWS,
    }
    if rollout.kind == Rollout.Kind.SHADOW:
        return _paired(rollout, active, window, classifies=classifies, positive=positive)
    return _separate(rollout, active, window, classifies=classifies, positive=positive)


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


# -- two separate samples --------------------------------------------------------------------------------


def _separate(
    rollout: Rollout, active: ModelVersion | None, window: dict[str, Any], *, classifies: bool, positive: Any
) -> Comparison:
    threshold = canary_assignment.threshold(rollout.percent or 0.0)
    shared = window | {
        "version": str(rollout.version_id),
        "threshold": threshold.to_bytes(9),
        "positive": positive,
    }
    arms = [shared | {"arm": rollout.version_id, "inside": True}]
    if active is not None:
        arms.append(shared | {"arm": active.pk, "inside": False})
    value = sql.scored(classifies)
    edges = sql.bin_edges([(sql.SEPARATE, each) for each in arms], value, classifies)
    sums = [_figures(sql.SEPARATE, each, value, classifies, edges) for each in arms]
    binary = positive is not None
    tried = _arm(rollout.version.number, sums[0], classifies, binary)
    other = _arm(active.number, sums[1], classifies, binary) if active is not None else None
    differences: dict[str, Estimate | None] = {}
    if other is not None:
        differences = {
            name: confidence_intervals.difference(metric, other.metrics[name])
            for name, metric in tried.metrics.items()
        }
        if classifies:
            differences["accuracy"] = confidence_intervals.share_difference(
                sums[0]["right"], sums[0]["known"], sums[1]["right"], sums[1]["known"]
            )
        differences["mean"] = confidence_intervals.difference(tried.mean, other.mean)
    task = "classification" if classifies else "regression"
    return Comparison(rollout.kind, task, other, tried, differences, None, None, edges, MOST_ROWS)


def _figures(
    rows: str, parameters: dict[str, Any], value: str, classifies: bool, edges: list[float]
) -> dict[str, Any]:
    """Returns the sums over an arm's rows."""
    if classifies:
        aggregates = """
            count(*) FILTER (WHERE actual = prediction) AS "right",
            avg(loss) AS loss, stddev_samp(loss) AS loss_deviation"""
        loss = quality_sql.brier("probability")
    else:
        aggregates = """
            avg(abs(error)) AS mae, stddev_samp(abs(error)) AS mae_deviation,
            avg(error ^ 2) AS mse, stddev_samp(error ^ 2) AS mse_deviation"""
        loss = "NULL::float8"
    as_number = quality_sql.as_number
    error = "NULL::float8" if classifies else f"{as_number('prediction')} - {as_number('actual')}"
    statement = f"""
        SELECT count(*) AS rows, count(actual) AS known, avg(value) AS mean, stddev_samp(value) AS deviation,
            {aggregates}, {sql.bin_counts("value", edges)} AS bins
        FROM (SELECT *, {value} AS value, {loss} AS loss, {error} AS error FROM ({rows}) judged) judged
    """  # noqa: S608 - constants alone
    return sql.only_row(statement, parameters)


def _arm(number: int, sums: dict[str, Any], classifies: bool, binary: bool) -> Arm:
    known = sums["known"]
    metrics: dict[str, Estimate | None]
    if classifies:
        metrics = {"accuracy": confidence_intervals.share(sums["right"], known)}
        if binary:
            metrics["brier"] = confidence_intervals.mean(sums["loss"], sums["loss_deviation"], known)
    else:
        metrics = {
            "mae": confidence_intervals.mean(sums["mae"], sums["mae_deviation"], known),
            "rmse": confidence_intervals.root_of_mean(sums["mse"], sums["mse_deviation"], known),
        }
    mean = confidence_intervals.mean(sums["mean"], sums["deviation"], sums["rows"])
    return Arm(number, sums["rows"], known, metrics, mean, sql.shares_of(sums["bins"]))


# -- one sample judged twice -----------------------------------------------------------------------------


def _paired(
    rollout: Rollout, active: ModelVersion | None, window: dict[str, Any], *, classifies: bool, positive: Any
) -> Comparison:
    parameters = window | {"rollout": rollout.pk, "positive": positive}
    first, second = sql.scored(classifies), sql.scored(classifies, "tried", "tried_probability")
    edges = sql.bin_edges([(sql.PAIRED, parameters), (sql.TRIED, parameters)], first, classifies)
    sums = [_figures(each, parameters, first, classifies, edges) for each in (sql.TRIED, sql.PAIRED)]
    binary = positive is not None
    tried = _arm(rollout.version.number, sums[0], classifies, binary)
    other = _arm(active.number if active is not None else 0, sums[1], classifies, binary)
    if classifies:
        errors = f"{quality_sql.brier('tried_probability')} AS e1, {quality_sql.brier('probability')} AS e2"
    else:
        errors = (
            f"{quality_sql.as_number('tried')} - {quality_sql.as_number('actual')} AS e1, "
            f"{quality_sql.as_number('prediction')} - {quality_sql.as_number('actual')} AS e2"
        )
    totals = sql.only_row(
        f"""
        SELECT count(*) AS rows, count(actual) AS known,
            count(*) FILTER (WHERE tried = prediction) AS agreed,
            count(*) FILTER (WHERE tried = actual AND prediction <> actual) AS only_tried,
            count(*) FILTER (WHERE prediction = actual AND tried <> actual) AS only_active,
            avg(abs(v1 - v2)) AS gap, stddev_samp(abs(v1 - v2)) AS gap_deviation,
            avg(v1 - v2) AS shift, stddev_samp(v1 - v2) AS shift_deviation,
            avg(e1 - e2) AS loss, stddev_samp(e1 - e2) AS loss_deviation,
            avg(abs(e1) - abs(e2)) AS mae, stddev_samp(abs(e1) - abs(e2)) AS mae_deviation,
            avg(e1 ^ 2) AS mse1, avg(e2 ^ 2) AS mse2, var_samp(e1 ^ 2) AS var1, var_samp(e2 ^ 2) AS var2,
            covar_samp(e1 ^ 2, e2 ^ 2) AS covariance
        FROM (SELECT *, {second} AS v1, {first} AS v2, {errors} FROM ({sql.PAIRED}) pair) pair
        """,  # noqa: S608 - constants alone
        parameters,
    )
    rows, known = totals["rows"], totals["known"]
    differences: dict[str, Estimate | None]
    if classifies:
        differences = {
            "accuracy": confidence_intervals.paired_share_difference(
                totals["only_tried"], totals["only_active"], known
            )
        }
        if positive is not None:
            differences["brier"] = confidence_intervals.mean(totals["loss"], totals["loss_deviation"], known)
    else:
        differences = {
            "mae": confidence_intervals.mean(totals["mae"], totals["mae_deviation"], known),
            "rmse": _paired_rmse(totals, known),
        }
    differences["mean"] = confidence_intervals.mean(totals["shift"], totals["shift_deviation"], rows)
    agreement = confidence_intervals.share(totals["agreed"], rows) if classifies else None
    gap = confidence_intervals.mean(totals["gap"], totals["gap_deviation"], rows)
    task = "classification" if classifies else "regression"
    return Comparison(rollout.kind, task, other, tried, differences, agreement, gap, edges, MOST_ROWS)


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


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return estimate.as_dict() if estimate is not None else None
