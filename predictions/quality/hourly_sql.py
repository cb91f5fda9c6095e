"""Aggregates one hour's labelled predictions in PostgreSQL into one `Tally` per version."""

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

# Between these magnitudes a number's fourth power is a double.
_LARGEST, _SMALLEST = "1e70", "1e-70"
_EPSILON: Final = sys.float_info.epsilon  # as scikit-learn's log_loss clips probabilities

# LIMIT makes the join one probe of the log's index per row, whatever number of rows the planner expects.
_LABELLED: Final = """
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
class _TaskSql:
    """The SQL expressions of one task.

    columns : name -> expression; null in rows that do not meet `usable`, a condition on these columns.
    then : columns computed from `columns`. sums : name -> aggregate over the usable rows.
    by : the columns of answer and actual class, for the pairs of more than two classes.
    """

    columns: Mapping[str, str]
    usable: str
    then: str
    sums: Mapping[str, str]
    by: tuple[str, str] | None = None


_ERROR: Final = {"square": "sum(d * d)", "square2": "sum(d * d * d * d)"}
_PARTS: Final[Mapping[Task, _TaskSql]] = {
    "binary": _TaskSql(
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
    "multiclass": _TaskSql(
        columns={
            "p": "probability",
            "happened": "actual = prediction",
            "answer": "prediction #>> '{}'",
            "truth": "actual #>> '{}'",
        },
        usable="p BETWEEN 0 AND 1 "
        "AND jsonb_typeof(actual) = 'string' AND jsonb_typeof(prediction) = 'string'",
        then=f"{_small_is_zero('(p - happened::int)')} AS d",
        sums={"right": "count(*) FILTER (WHERE happened)", **_ERROR},
        by=("answer", "truth"),
    ),
    "regression": _TaskSql(
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
    """Returns version id -> tally of the hour's labelled predictions. One statement per task of the model's
    versions, which have several tasks only if the declaration changed."""
    tallies: dict[int, Tally] = {}
    for task, versions in _by_task(model, hour).items():
        tallies |= _tallies(model, hour, task, versions)
    return tallies


def _by_task(model: RegisteredModel, hour: dt.datetime) -> dict[Task, list[_VersionClasses]]:
    """Groups the versions that answered in an hour by task. A model may have thousands of versions with long
    schemas, so the others are not loaded."""
    rows = Prediction.objects.filter(
        version_id=OuterRef("pk"), id__gte=lowest_at(hour), id__lt=lowest_at(hour + HOUR)
    )
    versions = list(model.versions.filter(Exists(rows)))
    centers = _centers(versions)
    tasks: dict[Task, list[_VersionClasses]] = {}
    for version in versions:
        task, classes = task_of(version)
        tasks.setdefault(task, []).append(_VersionClasses(version.pk, *classes, centers.get(version.pk, 0.0)))
    return tasks


@dataclass(frozen=True, slots=True)
class _VersionClasses:
    """A version, its two classes as JSON, and the mean of its answers."""

    version_id: int
    positive: str
    negative: str
    center: float


def task_of(version: ModelVersion) -> tuple[Task, tuple[str, str]]:
    """Returns a version's own task (the declaration may have changed) and, of two classes, the positive and
    the negative one as JSON."""
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
    """Returns version id -> mean of its answers to the hold-out, if known. The powers of actual values are
    summed around it, which preserves precision."""
    centers = {}
    for reference in ReferenceProfile.objects.filter(version__in=versions):
        answers = reference.profile.by_name[PREDICTION]
        if answers.rows:
            centers[reference.version_id] = sum(answers.sums) / answers.rows
    return centers


def _tallies(
    model: RegisteredModel, hour: dt.datetime, task: Task, versions: Sequence[_VersionClasses]
) -> dict[int, Tally]:
    task_sql = _PARTS[task]
    listed = [(each.version_id, each.positive, each.negative, each.center) for each in versions]
    names = ("versions", "positive", "negative", "center")
    parameters: dict[str, Any] = dict(zip(names, map(list, zip(*listed, strict=True)), strict=True))
    parameters |= {"model": model.pk, "low": lowest_at(hour), "high": lowest_at(hour + HOUR)}
    parameters |= {"bounds": list(BOUNDS), "growth": math.log(DELAY_GROWTH)}
    centers = {each.version_id: each.center for each in versions}
    tallies: dict[int, Tally] = {}
    with connection.cursor() as cursor:
        cursor.execute(_statement(task_sql), parameters)
        for version_id, kind, *row in cursor.fetchall():
            tally = tallies.setdefault(version_id, Tally(task, center=centers[version_id]))
            _ADD_GROUP[kind](tally, task_sql, *row)
    for tally in tallies.values():
        tally.bound()
    return tallies


def _statement(task_sql: _TaskSql) -> str:
    """Returns the statement that groups rows by version and probability bucket, by version and delay bucket,
    and for more than two classes by answer and actual class.

    GROUPING distinguishes these kinds of groups; nulls could not. OFFSET 0 keeps the planner from inlining an
    expression into the next one, which would compute it many times.
    """
    answer, truth = task_sql.by or ("NULL", "NULL")
    columns, usable = task_sql.columns, task_sql.usable
    sets = [
        "(version_id, bucket)",
        "(version_id, delayed)",
        *(["(version_id, answer, truth)"] if task_sql.by else []),
    ]
    return f"""
        SELECT version_id, grouping(bucket, delayed), bucket, delayed, {answer}, {truth}, count(*),
            sum(delay), count(*) FILTER (WHERE happened), sum(p), {", ".join(task_sql.sums.values())}
        FROM (
            SELECT *, width_bucket(p, %(bounds)s::float8[]) AS bucket, {task_sql.then},
                CASE WHEN abs(delay) < 1 THEN 0
                    ELSE sign(delay)::int * (floor(ln(abs(delay)) / %(growth)s)::int + 1) END AS delayed
            FROM (
                SELECT version_id, center, delay,
                    {", ".join(f"CASE WHEN {usable} THEN {name} END AS {name}" for name in columns)}
                FROM (
                    SELECT *, {", ".join(f"{sql} AS {name}" for name, sql in columns.items())}
                    FROM ({_LABELLED}) AS held OFFSET 0
                ) AS read OFFSET 0
            ) AS usable OFFSET 0
        ) AS judged
        GROUP BY GROUPING SETS ({", ".join(sets)})
    """  # noqa: S608 - constants alone


# A group: bucket, delayed, answer, truth, rows, sum of delays, hits, sum of probabilities, then the sums.
def _add_bucket(tally: Tally, task_sql: _TaskSql, *group: Any) -> None:
    bucket, _, _, _, rows, _, hits, probabilities, *sums = group
    tally.rows += rows
    if bucket is None:
        tally.unusable += rows
        return
    tally.buckets[bucket] = (rows, hits, probabilities)
    for name, value in zip(task_sql.sums, sums, strict=True):
        tally.sums[name] = tally.sums.get(name, 0) + (value or 0)


def _add_delay(tally: Tally, task_sql: _TaskSql, *group: Any) -> None:
    _, delayed, _, _, rows, delays, *_ = group
    tally.delays[delayed] = (rows, delays)


def _add_pair(tally: Tally, task_sql: _TaskSql, *group: Any) -> None:
    _, _, answer, truth, rows, *_ = group
    if answer is not None:
        tally.pairs[answer, truth] = rows


# The bits of GROUPING(bucket, delayed): a column's bit is 0 if the group is by this column.
_ADD_GROUP: Final = {0b01: _add_bucket, 0b10: _add_delay, 0b11: _add_pair}
