"""The work of a comparison: it evaluates both versions on the later one's hold-out."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from core.errors import ArtifactError, Conflict
from training import artifacts
from training.jobs.leases import Lease
from training.models import Comparison, ModelVersion
from training.registry import declarations
from training.reports import reproduction, side_by_side
from training.runs.evaluation import hold_out, judged_by
from vigia_ml import evaluation as judging
from vigia_ml.declaration import ModelDeclaration
from vigia_ml.engines import MatrixEngine
from vigia_ml.engines.frame_adapter import AskedByFrame
from vigia_ml.evaluation import Judged
from vigia_ml.evaluation import metrics as evaluation
from vigia_ml.fitting.fit import Split

_AGREEMENT = 1e-6  # relative tolerance between a stored metric and the metric measured again


def compare(lease: Lease) -> None:
    """Executes a claimed comparison; see `training.jobs.leases.Work`."""
    related = ("registered_model", "before__dataset", "after__dataset")
    job = Comparison.objects.select_related(*related).get(pk=lease.job_id)
    model, before, after = job.registered_model, job.before, job.after
    declared = declarations.find(model)
    if declared is None:
        raise Conflict(
            f"cannot compare versions of {model.name}: its declaration was removed; "
            f"restore training/catalogue/{model.name}.py"
        )
    lease.report("loading both versions", 10)
    earlier, later = _judged(before, declared), _judged(after, declared)
    lease.report("splitting again", 30)
    parts = reproduction.divided(after)
    if len(parts.held_x) != after.holdout_rows:
        raise Conflict(
            f"cannot recreate the hold-out of {after}: the split gives {len(parts.held_x):,} rows instead of "
            f"{after.holdout_rows:,}; the declaration's split has changed"
        )
    try:
        declarations.require_readable(after.dataset_schema, before.dataset_schema)
    except declarations.OtherColumns as error:
        raise Conflict(f"{before} cannot answer the rows of {after}: {error}") from None
    lease.report("looking for training rows of the earlier version", 45)
    overlap = _overlap(before, parts)
    lease.report("evaluating both versions", 60)
    held = hold_out(replace(declared, seed=after.seed), parts.held_x, parts.held_y, parts.held_w)
    result = judging.compared(held, earlier, later)
    result["before"]["version"], result["after"]["version"] = before.number, after.number
    result["holdout"] = {
        "of_version": after.number,
        "same_metrics": _agrees(after.metrics, result["after"]["metrics"]),
        **overlap,
    }
    result["schema"] = [
        asdict(each) for each in side_by_side.schema_changes(before.dataset_schema, after.dataset_schema)
    ]
    result["lineage"] = [asdict(each) for each in side_by_side.lineage_changes(before, after)]
    lease.end(Comparison.Status.SUCCEEDED, result=result)


def _judged(version: ModelVersion, declared: ModelDeclaration) -> Judged:
    judged = judged_by(version, declared)
    with suppress(ArtifactError):  # without the engine, the slower pipeline computes the importances
        serving = artifacts.load(version)
        if isinstance(serving, MatrixEngine):
            return replace(judged, quick=AskedByFrame(serving, version.dataset_schema))
    return judged


def _overlap(before: ModelVersion, later: Split) -> dict[str, Any]:
    """Counts the rows of the later version's hold-out on which the earlier version was trained.

    With equal seeds and shares there are none: a row's hash alone decides its side. The function counts
    nevertheless, because seeds and shares may differ.

    Returns
    -------
    ``trained_on`` : number of these rows; None when it is unknown. ``note`` : message.
    """
    try:
        earlier = reproduction.divided(before)
        unknown = "" if len(earlier.train_x) == before.train_rows else "its split has changed"
    except ArtifactError as error:
        unknown = str(error)
    if unknown:
        note = f"it is unknown whether {before} was trained on some of these rows: {unknown}"
        return {"trained_on": None, "note": note}
    common = [name for name in earlier.train_x.columns if name in later.held_x.columns]
    trained, rows = earlier.train_x[common], later.held_x[common]
    count = int(np.isin(evaluation.digests(rows), evaluation.digests(trained)).sum())
    if not count:
        return {"trained_on": 0, "note": f"{before} was trained on none of these rows"}
    if later.by_row_from is not None:
        note = (
            f"split by_row puts copies of a row on both sides: {before} was trained on rows with the "
            f"features of {count:,} of these {len(rows):,} rows"
        )
        return {"trained_on": None, "note": note}
    note = f"{before} was trained on {count:,} of these {len(rows):,} rows: its metrics here are optimistic"
    return {"trained_on": count, "note": note}


def _agrees(stored: dict[str, float], measured: dict[str, float | None]) -> bool:
    """Returns whether the metrics measured again agree with those stored at training time."""
    return all(
        value is not None and abs(value - stored[name]) <= _AGREEMENT * max(1.0, abs(stored[name]))
        for name, value in measured.items()
        if name in stored
    )
