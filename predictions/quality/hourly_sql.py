"""What one hour's labelled predictions add up to: PostgreSQL adds, a `Tally` a version comes back."""

from __future__ import annotations

import datetime as dt
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection
from django.db.models import Exists, OuterRef

from core.uuid7 import lowest_at
from predictions.models import Prediction
from predictions.quality import sql as arm_rows
from predictions.quality.metrics import BOUNDS, DELAY_GROWTH, Tally
from training.models import ModelVersion, ReferenceProfile, RegisteredModel
from vigia_ml.declaration import Task
from vigia_ml.reference_profile import PREDICTION

HOUR: Final = dt.timedelta(hours=1)

# Up to there, and from there on, a number's fourth power is still a double.
_LARGEST, _SMALLEST = "1e70", "1e-70"
_EPSILON: Final = sys.float_info.epsilon  # as scikit-learn's log_loss clips probabilities

# LIMIT makes the join one look into the log's index for each row, however many the planner thinks there are.
_HELD: Final = """
    SELECT log.version_id, log.prediction, log.probability, held.actual, of.positive, of.negative, of.center,
        extract(epoch FROM held.observed_at)::float8
            - vigia_milliseconds(held.prediction_id) / 1000.0::float8 AS delay
    FROM (
        SELECT DISTINCT ON (prediction_id) prediction_id, actual, observed_at
        FROM predictions_outcome
        WHERE registered_model_id = %(model)s AND prediction_id >= %(low)s AND prediction_id < %(high)s
        ORDER BY prediction_id, id DESC
    ) AS held
    CROSS JOIN LATERAL (
        SELECT version_id, prediction, probability FROM predictions_prediction
        WHERE id = held.prediction_id LIMIT 1
    ) AS log
    JOIN unnest(%(versions)s::bigint[], %(positive)s::jsonb[], %(negative)s::jsonb[], %(center)s::float8[])
        AS of (version_id, positive, negative, center) ON of.version_id = log.version_id
"""


def _small_is_zero(expression: str) -> str:
    return f"CASE WHEN abs({expression}) < {_SMALLEST} THEN 0 ELSE {expression} END"


@dataclass(frozen=True, slots=True)
class _Part:
    """What is asked of each row, in SQL.

    columns : name -> expression; null in rows that are not `usable`, which is a condition on them.
    then : columns made of these. sums : over the usable rows.
    """

    columns: Mapping[str, str]
    usable: str
    then: str
    sums: Mapping[str, str]
    by: tuple[str, str] | None = None


_ERROR: Final = {"square": "sum(d * d)", "square2": "sum(d * d * d * d)"}
_PARTS: Final[Mapping[Task, _Part]] = {
    "binary": _Part(
        columns={
            "p": "probability",
            "happened": "actual = positive",
            "decided": "prediction = positive",
        },
        usable="p BETWEEN 0 AND 1 AND actual IN (positive, negative) AND prediction IN (positive, negative)",
        then=f"""{_small_is_zero("(p - happened::int)")} AS d,
            -ln(greatest(CASE WHEN happened THEN p ELSE 1 - p END, {_EPSILON!r})) AS loss""",
        sums={
            "tp": "count(*) FILTER (WHERE happened AND decided)",
            "fp": "count(*) FILTER (WHERE decided AND NOT happened)",
            "fn": "count(*) FILTER (WHERE happened AND NOT decided)",
            "tn": "count(*) FILTER (WHERE NOT happened AND NOT decided)",
            "loss": "sum(loss)",
            "loss2": "sum(loss * loss)",
            **_ERROR,
        },
    ),
    "multiclass": _Part(
        columns={
            "p": "probability",
            "happened": "actual = prediction",
            "said": "prediction #>> '{}'",
            "was": "actual #>> '{}'",
        },
        usable="p BETWEEN 0 AND 1 "
        "AND jsonb_typeof(actual) = 'string' AND jsonb_typeof(prediction) = 'string'",
        then=f"{_small_is_zero('(p - happened::int)')} AS d",
        sums={"right": "count(*) FILTER (WHERE happened)", **_ERROR},
        by=("said", "was"),
    ),
    "regression": _Part(
        columns={
            "p": "0::float8",
            "happened": "false",
            "f": arm_rows.as_number("prediction"),
            "y": arm_rows.as_number("actual"),
        },
        usable=f"abs(f) < {_LARGEST} AND abs(y) < {_LARGEST}",
        then=f"""{_small_is_zero("(f - y)")} AS d, {_small_is_zero("(y - center)")} AS z,
            CASE WHEN abs(y) >= {_SMALLEST} THEN abs({_small_is_zero("(f - y)")} / y) END AS share""",
        sums={
            "absolute": "sum(abs(d))",
            "share": "sum(share)",
            "share2": f"sum(({_small_is_zero('share')}) ^ 2)",
            "share_rows": "count(share)",
            "z1": "sum(z)",
            "z2": "sum(z * z)",
            "z3": "sum(z * z * z)",
            "z4": "sum(z * z * z * z)",
            "wz": "sum(d * d * z)",
            "wzz": "sum(d * d * z * z)",
            **_ERROR,
        },
    ),
}


def of_hour(model: RegisteredModel, hour: dt.datetime) -> dict[int, Tally]:
    """Version id -> what the labelled predictions of an hour add up to. One statement for each task that the
    model's versions have, which is one unless its declaration changed."""
    found: dict[int, Tally] = {}
    for task, versions in _by_task(model, hour).items():
        found |= _tallies(model, hour, task, versions)
    return found


def _by_task(model: RegisteredModel, hour: dt.datetime) -> dict[Task, list[_Judged]]:
    """Of the versions that answered in an hour: a model may have thousands, and their schemas are long."""
    rows = Prediction.objects.filter(
        version_id=OuterRef("pk"), id__gte=lowest_at(hour), id__lt=lowest_at(hour + HOUR)
    )
    versions = list(model.versions.filter(Exists(rows)))
    centers = _centers(versions)
    tasks: dict[Task, list[_Judged]] = {}
    for version in versions:
        task, classes = task_of(version)
        tasks.setdefault(task, []).append(_Judged(version.pk, *classes, centers.get(version.pk, 0.0)))
    return tasks


@dataclass(frozen=True, slots=True)
class _Judged:
    """A version, its two classes as JSON, and the number near which its answers lie."""

    version_id: int
    positive: str
    negative: str
    center: float


def task_of(version: ModelVersion) -> tuple[Task, tuple[str, str]]:
    """What a version answers, whatever the model is declared to be by now; of two classes the positive one
    and the other, as JSON."""
    none = ("null", "null")
    if "rmse" in version.metrics:
        return "regression", none
    positive = arm_rows.positive(version)
    if positive is None:
        return "multiclass", none
    if positive == "true":
        return "binary", ("true", "false")
    target = version.dataset_schema.target
    levels = target.levels or (target.seen.levels if target.seen else ())
    return "binary", (positive, json.dumps(min(levels)))


def _centers(versions: Sequence[ModelVersion]) -> dict[int, float]:
    """Version id -> mean of its answers to the hold-out, where there is one: the powers of actual values are
    summed around it, which keeps their digits."""
    found = {}
    for reference in ReferenceProfile.objects.filter(version__in=versions):
        answers = reference.profile.by_name[PREDICTION]
        if answers.rows:
            found[reference.version_id] = sum(answers.sums) / answers.rows
    return found


def _tallies(
    model: RegisteredModel, hour: dt.datetime, task: Task, versions: Sequence[_Judged]
) -> dict[int, Tally]:
    part = _PARTS[task]
    listed = [(each.version_id, each.positive, each.negative, each.center) for each in versions]
    names = ("versions", "positive", "negative", "center")
    parameters: dict[str, Any] = dict(zip(names, map(list, zip(*listed, strict=True)), strict=True))
    parameters |= {"model": model.pk, "low": lowest_at(hour), "high": lowest_at(hour + HOUR)}
    parameters |= {"bounds": list(BOUNDS), "growth": math.log(DELAY_GROWTH)}
    centers = {each.version_id: each.center for each in versions}
    found: dict[int, Tally] = {}
    with connection.cursor() as cursor:
        cursor.execute(_statement(part), parameters)
        for version_id, kind, *row in cursor.fetchall():
            tally = found.setdefault(version_id, Tally(task, center=centers[version_id]))
            _READ[kind](tally, part, *row)
    for tally in found.values():
        tally.bound()
    return found


def _statement(part: _Part) -> str:
    """Rows in groups: by version and bucket of the probability, by version and that of the delay, and of more
    than two classes by answer and what was true. GROUPING says which of these a group is: nulls would not.
    OFFSET 0 keeps the planner from putting one expression into the next, to be computed many times over."""
    said, was = part.by or ("NULL", "NULL")
    sets = [
        "(version_id, bucket)",
        "(version_id, delayed)",
        *(["(version_id, said, was)"] if part.by else []),
    ]
    return f"""
        SELECT version_id, grouping(bucket, delayed), bucket, delayed, {said}, {was}, count(*), sum(delay),
            count(*) FILTER (WHERE happened), sum(p), {", ".join(part.sums.values())}
        FROM (
            SELECT *, width_bucket(p, %(bounds)s::float8[]) AS bucket, {part.then},
                CASE WHEN abs(delay) < 1 THEN 0
                    ELSE sign(delay)::int * (floor(ln(abs(delay)) / %(growth)s)::int + 1) END AS delayed
            FROM (
                SELECT version_id, center, delay,
                    {", ".join(f"CASE WHEN {part.usable} THEN {name} END AS {name}" for name in part.columns)}
                FROM (
                    SELECT *, {", ".join(f"{sql} AS {name}" for name, sql in part.columns.items())}
                    FROM ({_HELD}) AS held OFFSET 0
                ) AS read OFFSET 0
            ) AS usable OFFSET 0
        ) AS judged
        GROUP BY GROUPING SETS ({", ".join(sets)})
    """  # noqa: S608 - constants alone


# Each of a group: bucket, delayed, said, was, rows, sum of delays, hits, sum of probabilities, then the sums.
def _of_bucket(tally: Tally, part: _Part, *group: Any) -> None:
    bucket, _, _, _, rows, _, hits, probabilities, *sums = group
    tally.rows += rows
    if bucket is None:
        tally.unusable += rows
        return
    tally.buckets[bucket] = (rows, hits, probabilities)
    for name, value in zip(part.sums, sums, strict=True):
        tally.sums[name] = tally.sums.get(name, 0) + (value or 0)


def _of_delay(tally: Tally, part: _Part, *group: Any) -> None:
    _, delayed, _, _, rows, delays, *_ = group
    tally.delays[delayed] = (rows, delays)


def _of_pair(tally: Tally, part: _Part, *group: Any) -> None:
    _, _, said, was, rows, *_ = group
    if said is not None:
        tally.pairs[said, was] = rows


# The bits of GROUPING(bucket, delayed): a column's is 0 where the group is by it.
_READ: Final = {0b01: _of_bucket, 0b10: _of_delay, 0b11: _of_pair}
