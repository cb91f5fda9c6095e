"""The work of a comparison: it evaluates both versions on the later one's hold-out."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from core.errors import ArtifactError, Conflict
from training import artifacts, catalogue
from training.jobs.leases import Lease
from training.models import Comparison, ModelVersion
from training.reports import side_by_side
from training.runs.evaluation import stored_split
from vigia_ml import evaluation as judging
from vigia_ml.declaration import ModelDeclaration
from vigia_ml.engines import MatrixEngine
from vigia_ml.engines.frame_adapter import AskedByFrame
from vigia_ml.evaluation import HoldOut, Judged
from vigia_ml.evaluation import metrics as evaluation
from vigia_ml.fitting import parquet
from vigia_ml.fitting.fit import decode_target

Status = Comparison.Status
_AGREEMENT = 1e-6  # relative tolerance between a stored metric and the metric measured again


def compare(lease: Lease) -> None:
    """Executes a claimed comparison; see `training.jobs.leases.Work`."""
    related = ("registered_model", "before__dataset", "after__dataset")
    job = Comparison.objects.select_related(*related).get(pk=lease.job_id)
    model, before, after = job.registered_model, job.before, job.after
    if model.name not in catalogue.names():
        raise Conflict(
            f"cannot compare versions of {model.name}: its declaration was removed; "
            f"restore training/catalogue/{model.name}.py"
        )
    declared = catalogue.get(model.name)
    lease.report("loading both versions", 10)
    earlier, later = _judged(before, declared), _judged(after, declared)
    lease.report("splitting again", 30)
    divided = _divided(after, declared)
    if len(divided.held) != after.holdout_rows:
        raise Conflict(
            f"cannot recreate the hold-out of {after}: the split gives {len(divided.held):,} rows instead of "
            f"{after.holdout_rows:,}; the declaration's split has changed"
        )
    missing = [name for name in earlier.names if name not in divided.held.columns]
    if missing:
        raise Conflict(f"{before} requires {', '.join(missing)}, which the rows of {after} do not have")
    lease.report("looking for training rows of the earlier version", 45)
    overlap = _overlap(before, declared, divided)
    lease.report("evaluating both versions", 60)
    columns = tuple(declared.gate.slices)
    truth = divided.held_target.to_numpy()
    held = HoldOut(declared.task, divided.held, truth, declared.primary_metric, columns, after.seed)
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
    lease.end(Status.SUCCEEDED, result=result)


def _judged(version: ModelVersion, declared: ModelDeclaration) -> Judged:
    engine = artifacts.load_pipeline(version)
    threshold = version.threshold if version.threshold is not None else declared.threshold
    quick = None
    with suppress(ArtifactError):  # without the engine, the slower pipeline computes the importances
        serving = artifacts.load(version)
        if isinstance(serving, MatrixEngine):
            quick = AskedByFrame(serving, version.dataset_schema)
    return Judged(engine.pipeline, engine.schema.names, threshold, quick)


@dataclass(frozen=True)
class _Divided:
    """The rows of a version's dataset, split as its run split them.

    by_row : whether copies of a row are on both sides.
    """

    train: pd.DataFrame
    held: pd.DataFrame
    held_target: pd.Series[Any]
    by_row: bool


def _divided(version: ModelVersion, declared: ModelDeclaration) -> _Divided:
    schema, split = version.dataset_schema, stored_split(version, declared)
    with artifacts.dataset_file(version.dataset) as path:
        frame = parquet.read_frame(path, schema)
    target = decode_target(schema.target, frame[schema.target.name])
    features = frame[list(schema.names)]
    if split["distinct"]:
        keep = evaluation.distinct(features, target)
        features, target = features[keep].reset_index(drop=True), target[keep].reset_index(drop=True)
    by_row_from = split["by_row_from"]
    held = evaluation.holdout_mask(features, split["share"], split["seed"], target, by_row_from)
    return _Divided(features[~held], features[held], target[held], by_row_from is not None)


def _overlap(before: ModelVersion, declared: ModelDeclaration, later: _Divided) -> dict[str, Any]:
    """Counts the rows of the later version's hold-out on which the earlier version was trained.

    With equal seeds and shares there are none: a row's hash alone decides its side. The function counts
    nevertheless, because seeds and shares may differ.

    Returns
    -------
    ``trained_on`` : number of these rows; None when it is unknown. ``note`` : message.
    """
    try:
        earlier = _divided(before, declared)
    except ArtifactError as error:
        note = f"it is unknown whether {before} was trained on some of these rows: {error}"
        return {"trained_on": None, "note": note}
    if len(earlier.train) != before.train_rows:
        note = f"it is unknown whether {before} was trained on some of these rows: its split has changed"
        return {"trained_on": None, "note": note}
    common = [name for name in earlier.train.columns if name in later.held.columns]
    trained, rows = earlier.train[common], later.held[common]
    count = int(np.isin(evaluation.digests(rows), evaluation.digests(trained)).sum())
    if not count:
        return {"trained_on": 0, "note": f"{before} was trained on none of these rows"}
    if later.by_row:
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
