"""What a comparison does: both versions, loaded, on the hold-out of the later one."""

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
_AGREEMENT = 1e-6  # of a stored metric with the one measured again, relatively


def compare(lease: Lease) -> None:
    """Executes a claimed comparison; see `training.jobs.leases.Work`."""
    related = ("registered_model", "before__dataset", "after__dataset")
    job = Comparison.objects.select_related(*related).get(pk=lease.job_id)
    model, before, after = job.registered_model, job.before, job.after
    if model.name not in catalogue.names():
        raise Conflict(f"{model.name} is declared no longer, so its metrics are not known")
    declared = catalogue.get(model.name)
    lease.report("loading both versions", 10)
    earlier, later = _judged(before, declared), _judged(after, declared)
    lease.report("splitting again", 30)
    divided = _divided(after, declared)
    if len(divided.held) != after.holdout_rows:
        raise Conflict(
            f"the hold-out of {after} cannot be made again: {len(divided.held):,} rows, it had "
            f"{after.holdout_rows:,}; the declaration's split was changed since"
        )
    missing = [name for name in earlier.names if name not in divided.held.columns]
    if missing:
        raise Conflict(f"{before} asks for {', '.join(missing)}, which the rows of {after} do not have")
    lease.report("looking for rows that the earlier version was trained on", 45)
    apart = _apart(before, declared, divided)
    lease.report("judging both", 60)
    columns = tuple(declared.gate.slices)
    truth = divided.held_target.to_numpy()
    held = HoldOut(declared.task, divided.held, truth, declared.primary_metric, columns, after.seed)
    result = judging.compared(held, earlier, later)
    result["before"]["version"], result["after"]["version"] = before.number, after.number
    result["holdout"] = {
        "of_version": after.number,
        "same_metrics": _agrees(after.metrics, result["after"]["metrics"]),
        **apart,
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
    with suppress(ArtifactError):  # the importances can be had from the pipeline, only later
        serving = artifacts.load(version)
        if isinstance(serving, MatrixEngine):
            quick = AskedByFrame(serving, version.dataset_schema)
    return Judged(engine.pipeline, engine.schema.names, threshold, quick)


@dataclass(frozen=True)
class _Divided:
    """The rows of a version's dataset on the sides its run put them.

    by_row : whether copies of a row were divided.
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


def _apart(before: ModelVersion, declared: ModelDeclaration, later: _Divided) -> dict[str, Any]:
    """Whether the earlier version was trained on rows of the later one's hold-out.

    With equal seeds and shares it was not: a row's side is decided by its hash alone. It is looked at all the
    same, because neither need be equal.

    Returns
    -------
    ``trained_on`` : of the hold-out's rows, None where that cannot be said. ``note`` : in words.
    """
    try:
        earlier = _divided(before, declared)
    except ArtifactError as error:
        said = f"whether {before} was trained on some of these rows cannot be said: {error}"
        return {"trained_on": None, "note": said}
    if len(earlier.train) != before.train_rows:
        said = f"whether {before} was trained on some of these rows cannot be said: its split changed since"
        return {"trained_on": None, "note": said}
    common = [name for name in earlier.train.columns if name in later.held.columns]
    known, rows = earlier.train[common], later.held[common]
    count = int(np.isin(evaluation.digests(rows), evaluation.digests(known)).sum())
    if not count:
        return {"trained_on": 0, "note": f"{before} was trained on none of these rows"}
    if later.by_row:
        said = (
            f"split: by_row, which divides copies of a row: {before} was trained on rows with the features "
            f"of {count:,} of these {len(rows):,}"
        )
        return {"trained_on": None, "note": said}
    said = f"{before} was trained on {count:,} of these {len(rows):,} rows, which flatters it"
    return {"trained_on": count, "note": said}


def _agrees(stored: dict[str, float], found: dict[str, float | None]) -> bool:
    """Whether what was measured at training time comes out again."""
    return all(
        value is not None and abs(value - stored[name]) <= _AGREEMENT * max(1.0, abs(stored[name]))
        for name, value in found.items()
        if name in stored
    )
