"""The rows a run trains on: its upload or its source alone, or appended to the active version's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.errors import AlreadyTrained
from training import artifacts
from training.models import Dataset, ModelVersion, TrainingRun
from training.runs import row_sources
from training.runs import uploads as dataset_services
from training.runs.requests import ASK_AGAIN, all_known
from vigia_ml.fitting import parquet
from vigia_ml.notes import Note
from vigia_ml.schema import DatasetSchema


@dataclass(frozen=True)
class Assembled:
    """What a run trains on.

    nothing_new : every row of the request is in the active version's dataset already.
    """

    dataset: Dataset
    notes: tuple[Note, ...] = ()
    nothing_new: bool = False


def assemble(run: TrainingRun, schema: DatasetSchema, active: ModelVersion | None) -> Assembled:
    """The rows of a run; rows that the active version's dataset holds already are appended only by `repeat`.

    Raises
    ------
    AlreadyTrained : all rows of an appended source are there already.
    """
    upload = run.upload if run.upload is not None else _collected(run, schema)
    if active is None:
        return Assembled(_joined(run, schema, [upload]))
    if run.source is None:
        return _with_upload(run, schema, active, upload)
    known = _known(active.dataset, upload)
    said = f"{known:,} of the {upload.rows:,} rows are in the dataset of version {active.number} already"
    if run.mode == TrainingRun.Mode.REPLACE:
        note = Note("rows_in_dataset", "info", said)
        dataset = _joined(run, schema, [upload])
        return Assembled(dataset, (note,) if known else (), nothing_new=known == upload.rows)
    if known == upload.rows and not run.repeat:
        raise AlreadyTrained(all_known(upload.rows, active))
    parts = [active.dataset, upload]
    if not known:
        return Assembled(_joined(run, schema, parts))
    how = "were added again, so they count twice" if run.repeat else f"were left out ({ASK_AGAIN})"
    note = Note("rows_in_dataset", "warning" if run.repeat else "info", f"{said} and {how}")
    dataset = _joined(run, schema, parts, once=not run.repeat)
    return Assembled(dataset, (note,), nothing_new=known == upload.rows)


def _with_upload(run: TrainingRun, schema: DatasetSchema, active: ModelVersion, upload: Dataset) -> Assembled:
    if not active.dataset.holds(upload):
        parts = [active.dataset, upload] if run.mode == TrainingRun.Mode.APPEND else [upload]
        return Assembled(_joined(run, schema, parts))
    said = f"all {upload.rows:,} rows are in the dataset of version {active.number} already"
    if run.mode == TrainingRun.Mode.REPLACE:
        note = Note("rows_in_dataset", "info", said)
        return Assembled(_joined(run, schema, [upload]), (note,), nothing_new=True)
    if run.repeat:
        note = Note("rows_in_dataset", "warning", f"{said} and were added again, so they count twice")
        return Assembled(_joined(run, schema, [active.dataset, upload]), (note,), nothing_new=True)
    note = Note("rows_in_dataset", "info", f"{said} and were not added ({ASK_AGAIN})")
    return Assembled(_joined(run, schema, [active.dataset]), (note,), nothing_new=True)


def _known(dataset: Dataset, collected: Dataset) -> int:
    """How many rows were taken from predictions whose rows a dataset holds."""
    with _files([dataset, collected]) as (first, second):
        held = set(parquet.predictions(first).to_pylist())
        return sum(each in held for each in parquet.predictions(second).to_pylist())


def _joined(run: TrainingRun, schema: DatasetSchema, parts: list[Dataset], *, once: bool = False) -> Dataset:
    """The parts as one dataset under `schema`; see `vigia_ml.fitting.parquet.join`."""
    if len(parts) == 1 and parts[0].schema_sha256 == schema.sha256:
        return parts[0]
    with tempfile.TemporaryDirectory(prefix="vigia-") as directory, _files(parts) as paths:
        files = [(path, part.schema_sha256 == schema.sha256) for path, part in zip(paths, parts, strict=True)]
        written = parquet.join(files, Path(directory) / "joined.parquet", schema, once=once)
        source = " + ".join(part.sha256[:12] for part in parts)
        model = run.registered_model
        return dataset_services.register(
            model, written, schema.sha256, source=source, by=run.requested_by, parts=parts
        )


def _collected(run: TrainingRun, schema: DatasetSchema) -> Dataset:
    """The rows of the run's source, as a dataset; see `training.runs.row_sources`."""
    assert run.source is not None
    with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
        path = Path(directory) / "collected.parquet"
        written = row_sources.collect(run.registered_model, schema, run.source, path)
        said = " ".join(f"{name} {value}" for name, value in run.source.items())
        return dataset_services.register(
            run.registered_model, written, schema.sha256, source=said, by=run.requested_by
        )


@contextmanager
def _files(parts: list[Dataset]) -> Iterator[list[Path]]:
    if not parts:
        yield []
        return
    with artifacts.dataset_file(parts[0]) as first, _files(parts[1:]) as rest:
        yield [first, *rest]
