"""Assembly of a run's rows: its upload or source alone, or appended to the active version's rows."""

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
from training.runs.requests import REPEAT_HINT, all_known_message
from vigia_ml.fitting import parquet
from vigia_ml.notes import Note
from vigia_ml.schema import DatasetSchema


@dataclass(frozen=True)
class Assembled:
    """The dataset that a run trains on.

    nothing_new : the active version's dataset already holds every row of the request.
    """

    dataset: Dataset
    notes: tuple[Note, ...] = ()
    nothing_new: bool = False


def assemble(run: TrainingRun, schema: DatasetSchema, active: ModelVersion | None) -> Assembled:
    """Returns the rows of a run; rows that the active version's dataset already holds need `repeat` to be
    appended.

    Raises
    ------
    AlreadyTrained : the active version's dataset already holds all rows of an appended source.
    """
    upload = run.upload if run.upload is not None else _collected(run, schema)
    if active is None:
        return Assembled(_joined(run, schema, [upload]))
    if run.source is None:
        return _with_upload(run, schema, active, upload)
    known = _known(active.dataset, upload)
    overlap = f"{known:,} of the {upload.rows:,} rows are already in the dataset of version {active.number}"
    if run.mode == TrainingRun.Mode.REPLACE:
        note = Note("rows_in_dataset", "info", overlap)
        dataset = _joined(run, schema, [upload])
        return Assembled(dataset, (note,) if known else (), nothing_new=known == upload.rows)
    if known == upload.rows and not run.repeat:
        raise AlreadyTrained(all_known_message(upload.rows, active))
    parts = [active.dataset, upload]
    if not known:
        return Assembled(_joined(run, schema, parts))
    handling = "were added again, so they count twice" if run.repeat else f"were left out ({REPEAT_HINT})"
    note = Note("rows_in_dataset", "warning" if run.repeat else "info", f"{overlap} and {handling}")
    dataset = _joined(run, schema, parts, once=not run.repeat)
    return Assembled(dataset, (note,), nothing_new=known == upload.rows)


def _with_upload(run: TrainingRun, schema: DatasetSchema, active: ModelVersion, upload: Dataset) -> Assembled:
    if not active.dataset.holds(upload):
        parts = [active.dataset, upload] if run.mode == TrainingRun.Mode.APPEND else [upload]
        return Assembled(_joined(run, schema, parts))
    overlap = f"all {upload.rows:,} rows are already in the dataset of version {active.number}"
    if run.mode == TrainingRun.Mode.REPLACE:
        note = Note("rows_in_dataset", "info", overlap)
        return Assembled(_joined(run, schema, [upload]), (note,), nothing_new=True)
    if run.repeat:
        note = Note("rows_in_dataset", "warning", f"{overlap} and were added again, so they count twice")
        return Assembled(_joined(run, schema, [active.dataset, upload]), (note,), nothing_new=True)
    note = Note("rows_in_dataset", "info", f"{overlap} and were not added ({REPEAT_HINT})")
    return Assembled(_joined(run, schema, [active.dataset]), (note,), nothing_new=True)


def _known(dataset: Dataset, collected: Dataset) -> int:
    """Returns the number of collected rows whose prediction a dataset already holds."""
    with _files([dataset, collected]) as (first, second):
        held = set(parquet.predictions(first).to_pylist())
        return sum(each in held for each in parquet.predictions(second).to_pylist())


def _joined(run: TrainingRun, schema: DatasetSchema, parts: list[Dataset], *, once: bool = False) -> Dataset:
    """Joins the parts into one dataset under `schema`; see `vigia_ml.fitting.parquet.join`."""
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
    """Collects the rows of the run's source into a dataset; see `training.runs.row_sources`."""
    assert run.source is not None
    with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
        path = Path(directory) / "collected.parquet"
        written = row_sources.of(run.source).collect(run.registered_model, schema, run.source, path)
        description = " ".join(f"{name} {value}" for name, value in run.source.items())
        return dataset_services.register(
            run.registered_model, written, schema.sha256, source=description, by=run.requested_by
        )


@contextmanager
def _files(parts: list[Dataset]) -> Iterator[list[Path]]:
    if not parts:
        yield []
        return
    with artifacts.dataset_file(parts[0]) as first, _files(parts[1:]) as rest:
        yield [first, *rest]
