"""Training rows from the log: logged inputs with their outcomes as the target.

This is the source ``outcomes`` of training runs; see `training.runs.row_sources`.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from core.errors import NotFound
from core.uuid7 import LAST, lowest_at
from predictions.models import decoded
from predictions.outcomes import labelled_rows
from predictions.outcomes.labelled_rows import Labelled
from predictions.outcomes.parsing import WINDOW, times_in
from training.models import ModelVersion, RegisteredModel
from vigia_ml.schema import DatasetSchema, Fault, Instance, InvalidRows
from vigia_ml.schema.faults import REPORTED_FAULTS

if TYPE_CHECKING:
    from vigia_ml.fitting.dataset_file import Written
    from vigia_ml.fitting.parquet import DatasetWriter


def check(parameters: dict[str, Any]) -> dict[str, Any]:
    """Returns ``since`` and ``until`` (default: now), the times of the predictions, in UTC.

    Raises
    ------
    InvalidRows : a value is not a time, or the window is empty.
    """
    window, faults = times_in(parameters, "this source")
    if not faults:
        window.setdefault("until", timezone.now())
        if "since" in window and window["since"] >= window["until"]:
            faults.append(Fault("since", "out_of_bounds", "since must be before until"))
    if faults:
        raise InvalidRows(faults, message="the request is invalid")
    return {name: window[name].isoformat() for name in WINDOW if name in window}


def collect(model: RegisteredModel, schema: DatasetSchema, source: dict[str, Any], path: Path) -> Written:
    """Writes the logged rows of the window that have an outcome, oldest first; see `row_sources.Source`.

    Rows logged under another schema are validated against `schema` like new rows.

    Raises
    ------
    NotFound : no row has an outcome. InvalidRows : rows of an earlier schema do not fit today's.
    """
    from vigia_ml.fitting.parquet import DatasetWriter

    low, high = _window(source)
    logged = _Schemas()
    with DatasetWriter(path, schema, logged=True) as writer:
        for page in labelled_rows.pages(model.pk, low, high, inputs=True):
            for version_id, rows in groupby(page, key=attrgetter("version_id")):
                _write(writer, schema, logged[version_id], list(rows))
    if not writer.rows:
        window = f"{source.get('since', 'the beginning')} and {source.get('until', 'now')}"
        raise NotFound(f"no prediction of {model.name} made between {window} has an outcome")
    return writer.written()


def predictions(model: RegisteredModel, source: dict[str, Any]) -> Iterator[list[str]]:
    """Yields the ids of the predictions that `collect` takes, in pages; see `row_sources.Source`."""
    for page in labelled_rows.pages(model.pk, *_window(source), inputs=False):
        yield [row.prediction_id for row in page]


def _window(source: dict[str, Any]) -> tuple[uuid.UUID, uuid.UUID]:
    """Returns the ids between which the predictions of a source lie."""
    low = lowest_at(dt.datetime.fromisoformat(source["since"])) if "since" in source else uuid.UUID(int=0)
    high = lowest_at(dt.datetime.fromisoformat(source["until"])) if "until" in source else LAST
    return low, high


class _Schemas(dict[int, tuple[DatasetSchema, str]]):
    """Version id -> (schema, hash of the schema); loads each of the few versions once."""

    def __missing__(self, version_id: int) -> tuple[DatasetSchema, str]:
        row = ModelVersion.objects.only("schema", "schema_sha256").get(pk=version_id)
        self[version_id] = (row.dataset_schema, row.schema_sha256)
        return self[version_id]


def _write(
    writer: DatasetWriter, schema: DatasetSchema, logged: tuple[DatasetSchema, str], rows: Sequence[Labelled]
) -> None:
    """Writes rows of one version. Rows logged under this same schema are valid as they are."""
    logged_schema, sha256 = logged
    cells = decoded(row.cells or "[]" for row in rows)
    actuals = decoded(row.actual for row in rows)
    keys = [row.key for row in rows]
    ids = [row.prediction_id for row in rows]
    if sha256 == schema.sha256:
        columns = {
            name: list(values) for name, values in zip(schema.names, zip(*cells, strict=True), strict=True)
        }
        writer.write_columns(columns | {schema.target.name: actuals} | _weights(schema, len(rows)), keys, ids)
    else:
        writer.write_instances(_reread(schema, logged_schema, cells, actuals, keys), schema.target.name, ids)


def _weights(schema: DatasetSchema, rows: int) -> dict[str, list[float]]:
    """Returns the column of weights, if the schema names one: the log has none, so each row counts once."""
    return {} if schema.weight_column is None else {schema.weight_column.name: [1.0] * rows}


def _reread(
    schema: DatasetSchema,
    logged: DatasetSchema,
    cells: Iterable[Sequence[Any]],
    actuals: Iterable[Any],
    keys: Iterable[str | None],
) -> list[Instance]:
    good: list[Instance] = []
    faults: list[Fault] = []
    for values, actual, key in zip(cells, actuals, keys, strict=True):
        row = {
            name: value
            for name, value in zip(logged.names, values, strict=True)
            if schema.role(name) == "feature"
        }
        reread = schema.read(row | {schema.target.name: actual}, with_target=True, weight_required=False)
        if isinstance(reread, Instance):
            good.append(Instance(reread.values, key, reread.target, reread.weight))
        else:
            faults += reread
            if len(faults) > REPORTED_FAULTS:
                break
    if faults:
        message = f"rows logged by an earlier version do not fit today's schema: {faults[0].message}"
        raise InvalidRows(faults, message=f"{message}; choose a later since")
    return good
