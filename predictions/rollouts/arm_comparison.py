"""What a rollout's two arms are worth: the version that is tried, and the active one beside it.

A canary's arms answered different clients: two separate samples. A shadow was asked the very rows the active
version answered: one sample judged twice, which tells smaller differences apart. PostgreSQL aggregates; of
each arm at most the newest `MOST_ROWS` rows of the rollout's time are read, each with one look-up of its
outcome.

The log does not say under which address a row was asked for: a client whom the canary answers and who also
asks that version by its number counts in both ways.
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

    rows : that were looked at. outcomes : of them whose ground truth is known; coverage is their share.
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

    active, tried : None where nothing was active when it began.
    differences : name of a metric, or "mean" -> tried minus active.
    agreement, gap : of a shadow, on the same rows: the share of equal answers (of a classification), and the
        mean absolute difference of probabilities, or of answers.
    edges : of the histograms' bins, one more than bins. bound : rows of an arm that are read at most; when
        there are more, these are the newest.
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

    def as_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        plain = asdict(self)
        for name in ("active", "tried"):
            arm: Arm | None = getattr(self, name)
            if arm is not None:
                plain[name] |= {"coverage": arm.coverage, "mean": _plain(arm.mean)}
                plain[name]["metrics"] = {key: _plain(found) for key, found in arm.metrics.items()}
        plain["differences"] = {key: _plain(found) for key, found in self.differences.items()}
        return plain | {"agreement": _plain(self.agreement), "gap": _plain(self.gap)}


def compare(rollout: Rollout) -> Comparison:
    """The arms of a running rollout up to now, or of one that ended over all its time."""
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
    """The version that was active while the rollout ran: it ends with the next activation."""
    before = rollout.registered_model.activations.filter(at__lte=rollout.started_at).select_related("version")
    found = before.first()
    return found.version if found is not None else None


def tallies(rollout: Rollout) -> dict[str, int]:
    """How many rows a shadow answered, dropped and failed in all; of a canary, `failed` are those the active
    version answered because the canary could not be loaded."""
    names = ("answered", "dropped", "failed")
    found = ShadowTally.objects.filter(rollout=rollout).aggregate(**{name: Sum(name) for name in names})
    return {name: found[name] or 0 for name in names}


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
    asked = [shared | {"arm": rollout.version_id, "inside": True}]
    if active is not None:
        asked.append(shared | {"arm": active.pk, "inside": False})
    value = sql.scored(classifies)
    edges = sql.bin_edges([(sql.SEPARATE, each) for each in asked], value, classifies)
    found = [_figures(sql.SEPARATE, each, value, classifies, edges) for each in asked]
    binary = positive is not None
    tried = _arm(rollout.version.number, found[0], classifies, binary)
    other = _arm(active.number, found[1], classifies, binary) if active is not None else None
    differences: dict[str, Estimate | None] = {}
    if other is not None:
        differences = {
            name: confidence_intervals.difference(metric, other.metrics[name])
            for name, metric in tried.metrics.items()
        }
        if classifies:
            differences["accuracy"] = confidence_intervals.share_difference(
                found[0]["right"], found[0]["known"], found[1]["right"], found[1]["known"]
            )
        differences["mean"] = confidence_intervals.difference(tried.mean, other.mean)
    task = "classification" if classifies else "regression"
    return Comparison(rollout.kind, task, other, tried, differences, None, None, edges, MOST_ROWS)


def _figures(
    rows: str, parameters: dict[str, Any], value: str, classifies: bool, edges: list[float]
) -> dict[str, Any]:
    """One row of sums over an arm's rows."""
    if classifies:
        judged = """
            count(*) FILTER (WHERE actual = prediction) AS "right",
            avg(loss) AS loss, stddev_samp(loss) AS loss_deviation"""
        loss = quality_sql.brier("probability")
    else:
        judged = """
            avg(abs(error)) AS mae, stddev_samp(abs(error)) AS mae_deviation,
            avg(error ^ 2) AS mse, stddev_samp(error ^ 2) AS mse_deviation"""
        loss = "NULL::float8"
    as_number = quality_sql.as_number
    error = "NULL::float8" if classifies else f"{as_number('prediction')} - {as_number('actual')}"
    statement = f"""
        SELECT count(*) AS rows, count(actual) AS known, avg(value) AS mean, stddev_samp(value) AS deviation,
            {judged}, {sql.bin_counts("value", edges)} AS bins
        FROM (SELECT *, {value} AS value, {loss} AS loss, {error} AS error FROM ({rows}) judged) judged
    """  # noqa: S608 - constants alone
    return sql.only_row(statement, parameters)


def _arm(number: int, found: dict[str, Any], classifies: bool, binary: bool) -> Arm:
    known = found["known"]
    metrics: dict[str, Estimate | None]
    if classifies:
        metrics = {"accuracy": confidence_intervals.share(found["right"], known)}
        if binary:
            metrics["brier"] = confidence_intervals.mean(found["loss"], found["loss_deviation"], known)
    else:
        metrics = {
            "mae": confidence_intervals.mean(found["mae"], found["mae_deviation"], known),
            "rmse": confidence_intervals.root_of_mean(found["mse"], found["mse_deviation"], known),
        }
    mean = confidence_intervals.mean(found["mean"], found["deviation"], found["rows"])
    return Arm(number, found["rows"], known, metrics, mean, sql.shares_of(found["bins"]))


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
    found = sql.only_row(
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
    rows, known = found["rows"], found["known"]
    differences: dict[str, Estimate | None]
    if classifies:
        differences = {
            "accuracy": confidence_intervals.paired_share_difference(
                found["only_tried"], found["only_active"], known
            )
        }
        if positive is not None:
            differences["brier"] = confidence_intervals.mean(found["loss"], found["loss_deviation"], known)
    else:
        differences = {
            "mae": confidence_intervals.mean(found["mae"], found["mae_deviation"], known),
            "rmse": _paired_rmse(found, known),
        }
    differences["mean"] = confidence_intervals.mean(found["shift"], found["shift_deviation"], rows)
    agreement = confidence_intervals.share(found["agreed"], rows) if classifies else None
    gap = confidence_intervals.mean(found["gap"], found["gap_deviation"], rows)
    task = "classification" if classifies else "regression"
    return Comparison(rollout.kind, task, other, tried, differences, agreement, gap, edges, MOST_ROWS)


def _paired_rmse(found: dict[str, Any], known: int) -> Estimate | None:
    """sqrt(m1) - sqrt(m2) of two means over the same rows, by the delta method: its gradient is
    (1 / (2 sqrt(m1)), -1 / (2 sqrt(m2)))."""
    if not known or found["mse1"] is None:
        return None
    roots = found["mse1"] ** 0.5, found["mse2"] ** 0.5
    value = roots[0] - roots[1]
    if not all(roots) or found["var1"] is None:
        return Estimate(value, None, None, known)
    first, second = 1 / (2 * roots[0]), 1 / (2 * roots[1])
    variance = found["var1"] * first**2 + found["var2"] * second**2 - 2 * found["covariance"] * first * second
    return confidence_intervals.estimate(value, max(variance / known, 0.0) ** 0.5, known)


def _plain(found: Estimate | None) -> dict[str, Any] | None:
    return found.as_dict() if found is not None else None
