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
import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from django.db import connection
from django.db.models import Sum
from django.utils import timezone

from predictions.identifiers import lowest_at
from predictions.models import ShadowTally
from predictions.services import intervals
from predictions.services.intervals import Estimate
from training.models import ModelVersion, Rollout
from training.services import buckets

MOST_ROWS: Final = 50_000
BINS: Final = 10

# Of several outcomes of one prediction, the latest holds.
_OUTCOME: Final = """
    LEFT JOIN LATERAL (
        SELECT actual FROM predictions_outcome o WHERE o.prediction_id = arm.id ORDER BY o.id DESC LIMIT 1
    ) outcome ON true
"""
# Whom the canary answers, as `training.services.buckets` has it; with a byte more, for a threshold of 2^64.
_IS_IN: Final = """
    ('\\x00'::bytea || substring(sha256(convert_to(%(version)s || ':' || client_id, 'UTF8')) FROM 1 FOR 8))
        < %(threshold)s
"""
_SEPARATE: Final = f"""
    SELECT arm.id, arm.prediction, arm.probability, outcome.actual FROM (
        SELECT id, client_id, prediction, probability FROM predictions_prediction
        WHERE version_id = %(arm)s AND id >= %(since)s AND id < %(until)s ORDER BY id DESC LIMIT %(most)s
    ) arm {_OUTCOME}
    WHERE client_id IS NOT NULL AND ({_IS_IN}) = %(inside)s
"""  # noqa: S608 - constants alone
_PAIRED: Final = f"""
    SELECT arm.*, outcome.actual FROM (
        SELECT log.id, log.prediction, log.probability,
            shadow.prediction AS tried, shadow.probability AS tried_probability
        FROM (
            SELECT * FROM predictions_shadowanswer WHERE rollout_id = %(rollout)s
            ORDER BY prediction_id DESC LIMIT %(most)s
        ) shadow JOIN predictions_prediction log ON log.id = shadow.prediction_id
        WHERE log.id >= %(since)s AND log.id < %(until)s
    ) arm {_OUTCOME}
"""  # noqa: S608 - constants alone


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
    positive = _positive(version)
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
    threshold = buckets.threshold(rollout.percent or 0.0)
    shared = window | {
        "version": str(rollout.version_id),
        "threshold": threshold.to_bytes(9),
        "positive": positive,
    }
    asked = [shared | {"arm": rollout.version_id, "inside": True}]
    if active is not None:
        asked.append(shared | {"arm": active.pk, "inside": False})
    value = _value(classifies)
    edges = _edges([(_SEPARATE, each) for each in asked], value, classifies)
    found = [_figures(_SEPARATE, each, value, classifies, edges) for each in asked]
    binary = positive is not None
    tried = _arm(rollout.version.number, found[0], classifies, binary)
    other = _arm(active.number, found[1], classifies, binary) if active is not None else None
    differences: dict[str, Estimate | None] = {}
    if other is not None:
        differences = {
            name: intervals.difference(metric, other.metrics[name]) for name, metric in tried.metrics.items()
        }
        if classifies:
            differences["accuracy"] = intervals.share_difference(
                found[0]["right"], found[0]["known"], found[1]["right"], found[1]["known"]
            )
        differences["mean"] = intervals.difference(tried.mean, other.mean)
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
        loss = _brier("probability")
    else:
        judged = """
            avg(abs(error)) AS mae, stddev_samp(abs(error)) AS mae_deviation,
            avg(error ^ 2) AS mse, stddev_samp(error ^ 2) AS mse_deviation"""
        loss = "NULL::float8"
    error = "NULL::float8" if classifies else f"{_number('prediction')} - {_number('actual')}"
    statement = f"""
        SELECT count(*) AS rows, count(actual) AS known, avg(value) AS mean, stddev_samp(value) AS deviation,
            {judged}, {_histogram("value", edges)} AS bins
        FROM (SELECT *, {value} AS value, {loss} AS loss, {error} AS error FROM ({rows}) judged) judged
    """  # noqa: S608 - constants alone
    return _one(statement, parameters)


def _arm(number: int, found: dict[str, Any], classifies: bool, binary: bool) -> Arm:
    known = found["known"]
    metrics: dict[str, Estimate | None]
    if classifies:
        metrics = {"accuracy": intervals.share(found["right"], known)}
        if binary:
            metrics["brier"] = intervals.mean(found["loss"], found["loss_deviation"], known)
    else:
        metrics = {
            "mae": intervals.mean(found["mae"], found["mae_deviation"], known),
            "rmse": intervals.root_of_mean(found["mse"], found["mse_deviation"], known),
        }
    mean = intervals.mean(found["mean"], found["deviation"], found["rows"])
    return Arm(number, found["rows"], known, metrics, mean, _shares(found["bins"]))


# -- one sample judged twice -----------------------------------------------------------------------------


def _paired(
    rollout: Rollout, active: ModelVersion | None, window: dict[str, Any], *, classifies: bool, positive: Any
) -> Comparison:
    parameters = window | {"rollout": rollout.pk, "positive": positive}
    first, second = _value(classifies), _value(classifies, "tried", "tried_probability")
    as_tried = (
        f"SELECT id, tried AS prediction, tried_probability AS probability, actual FROM ({_PAIRED}) pair"  # noqa: S608
    )
    edges = _edges([(_PAIRED, parameters), (as_tried, parameters)], first, classifies)
    sums = [_figures(each, parameters, first, classifies, edges) for each in (as_tried, _PAIRED)]
    binary = positive is not None
    tried = _arm(rollout.version.number, sums[0], classifies, binary)
    other = _arm(active.number if active is not None else 0, sums[1], classifies, binary)
    if classifies:
        errors = f"{_brier('tried_probability')} AS e1, {_brier('probability')} AS e2"
    else:
        errors = (
            f"{_number('tried')} - {_number('actual')} AS e1, "
            f"{_number('prediction')} - {_number('actual')} AS e2"
        )
    found = _one(
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
        FROM (SELECT *, {second} AS v1, {first} AS v2, {errors} FROM ({_PAIRED}) pair) pair
        """,  # noqa: S608 - constants alone
        parameters,
    )
    rows, known = found["rows"], found["known"]
    differences: dict[str, Estimate | None]
    if classifies:
        differences = {
            "accuracy": intervals.paired_share_difference(found["only_tried"], found["only_active"], known)
        }
        if positive is not None:
            differences["brier"] = intervals.mean(found["loss"], found["loss_deviation"], known)
    else:
        differences = {
            "mae": intervals.mean(found["mae"], found["mae_deviation"], known),
            "rmse": _paired_rmse(found, known),
        }
    differences["mean"] = intervals.mean(found["shift"], found["shift_deviation"], rows)
    agreement = intervals.share(found["agreed"], rows) if classifies else None
    gap = intervals.mean(found["gap"], found["gap_deviation"], rows)
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
    return intervals.estimate(value, max(variance / known, 0.0) ** 0.5, known)


# -- pieces of SQL, made of constants ----------------------------------------------------------------------


def _value(classifies: bool, prediction: str = "prediction", probability: str = "probability") -> str:
    return probability if classifies else _number(prediction)


def _number(column: str) -> str:
    """A JSON number as a double; null for anything else."""
    return f"CASE WHEN jsonb_typeof({column}) = 'number' THEN {column}::float8 END"


def _brier(probability: str) -> str:
    """(p - y)^2 of two classes (Brier 1950); null where there are more, or no outcome."""
    happened = "(actual = %(positive)s::jsonb)::int"
    return f"CASE WHEN actual IS NOT NULL THEN ({probability} - {happened}) ^ 2 END"


def _histogram(value: str, edges: list[float]) -> str:
    """An array of `BINS` counts; what lies on the last edge is in the last bin."""
    if not edges:
        return "NULL"
    bins = f"least(greatest(width_bucket({value}, {edges[0]!r}, {edges[-1]!r}, {BINS}), 1), {BINS})"
    counts = ", ".join(f"count(*) FILTER (WHERE {bins} = {number})" for number in range(1, BINS + 1))
    return f"ARRAY[{counts}]"


def _edges(arms: list[tuple[str, dict[str, Any]]], value: str, classifies: bool) -> list[float]:
    """Of probabilities 0 to 1; of numbers, from the least to the greatest answer of both arms."""
    low, high = 0.0, 1.0
    if not classifies:
        ends = [
            _one(f"SELECT min({value}) AS low, max({value}) AS high FROM ({rows}) arm", parameters)  # noqa: S608
            for rows, parameters in arms
        ]
        known = [end for end in ends if end["low"] is not None]
        if not known:
            return []
        low, high = min(end["low"] for end in known), max(end["high"] for end in known)
        if low == high:
            low, high = low - 0.5, high + 0.5
    return [low + (high - low) * step / BINS for step in range(BINS)] + [high]


def _one(statement: str, parameters: dict[str, Any]) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        names = [column.name for column in cursor.description or ()]
        return dict(zip(names, cursor.fetchone() or (), strict=True))


def _shares(counts: list[int] | None) -> list[float]:
    whole = sum(counts or ())
    return [count / whole for count in counts or ()] if whole else []


def _positive(version: ModelVersion) -> str | None:
    """The class whose probability the log holds, as JSON; None where it holds that of the likeliest class.

    With a threshold there are two classes and the log holds the second's: true, or the last in order.
    """
    target = version.dataset_schema.target
    if version.threshold is None:
        return None
    if target.type == "boolean":
        return "true"
    levels = sorted(target.levels or (target.seen.levels if target.seen else ()))
    return json.dumps(levels[-1]) if len(levels) == 2 else None


def _plain(found: Estimate | None) -> dict[str, Any] | None:
    return found.as_dict() if found is not None else None
