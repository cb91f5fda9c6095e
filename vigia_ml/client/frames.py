"""Between pandas frames and rows. Only a call with a frame, or for one, imports pandas."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import msgspec

from vigia_ml.client.results import Answer, LoggedPrediction, RowError
from vigia_ml.errors import VigiaError
from vigia_ml.schema import DatasetSchema
from vigia_ml.schema.row_keys import KEY_FIELD

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    Table = pd.DataFrame | pd.Series[Any] | npt.NDArray[Any] | list[str]

Row = Mapping[str, Any]
Probabilities = Literal["dict", "columns", "none"]
NEEDS_PANDAS = "frames need pandas: pip install 'vigia-ml[models]'"


def is_frame(rows: object) -> TypeGuard[pd.DataFrame]:
    """Returns whether `rows` is a pandas frame, without importing pandas."""
    return any(
        kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] == "pandas"
        for kind in type(rows).__mro__
    )


def is_table(rows: object) -> bool:
    """Returns whether `rows` is a frame, a series, an array or a list of texts: rows that are no mappings."""
    if isinstance(rows, list):
        return bool(rows) and all(isinstance(row, str) for row in rows)
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(rows).__mro__}
    return is_frame(rows) or not kinds.isdisjoint(("pandas.Series", "numpy.ndarray"))


def tabled(rows: Any, schema: DatasetSchema) -> pd.DataFrame:
    """Returns a frame as it is, and an array (n, p), a series or texts as a frame with the schema's names.

    A series whose index holds the names of columns is one row, as ``frame.iloc[0]`` gives it.
    """
    from vigia_ml.pushing.rows import as_frame

    if is_frame(rows):
        return rows
    if hasattr(rows, "to_frame") and any(str(name) in schema.by_name for name in rows.index):
        row: pd.DataFrame = rows.to_frame().T
        return row
    return as_frame(rows, schema.names)


def import_pandas() -> Any:
    try:
        import pandas as pd
    except ImportError as error:
        raise VigiaError(NEEDS_PANDAS, code="needs_library") from error
    return pd


def schema_of(plain: Mapping[str, Any] | None, model: str) -> DatasetSchema:
    """Returns the schema that the service sent.

    Raises
    ------
    VigiaError : the model has none, or it needs a newer library.
    """
    if plain is None:
        raise VigiaError(f"{model} does not answer rows, so there is nothing to convert a frame to")
    try:
        return DatasetSchema.from_json(plain)
    except (TypeError, KeyError, ValueError) as error:
        message = f"this version of vigia-ml cannot read the schema of {model}: install the service's version"
        raise VigiaError(f"{message} ({error})", code="newer_schema") from error


def rows_of(
    frame: pd.DataFrame,
    schema: DatasetSchema,
    *,
    key_column: str | None = None,
    with_target: bool = False,
) -> list[dict[str, Any]]:
    """Returns a frame's rows as the API reads them.

    Parameters
    ----------
    key_column : column with the caller's own reference of each row; it may also be a feature.
    """
    from vigia_ml.pushing import rows_of as converted

    if key_column is None:
        return converted(frame, schema, with_target=with_target)
    if key_column not in frame.columns:
        raise VigiaError(f"the frame has no column {key_column!r} for the keys", code="missing_column")
    keys = frame[key_column]
    rest = frame if schema.role(key_column) == "feature" else frame.drop(columns=[key_column])
    rows = converted(rest, schema, with_target=with_target)
    for row, key in zip(rows, keys, strict=True):
        row[KEY_FIELD] = key_text(key)
    return rows


def key_text(key: object) -> str | None:
    """Returns a key as text; a missing one as None, and a whole float (a column with gaps) as an integer."""
    if key is None or type(key).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(key, float):
        return None if math.isnan(key) else str(int(key) if key.is_integer() else key)
    return str(key)


def keyed(rows: Sequence[Row], key_column: str | None) -> Sequence[Row]:
    """Returns rows with the value of `key_column` as their key; the column itself is not sent."""
    if key_column is None:
        return rows
    return [
        {name: value for name, value in row.items() if name != key_column}
        | {KEY_FIELD: key_text(row.get(key_column))}
        for row in rows
    ]


# -- results -------------------------------------------------------------------------------------------


def answers_frame(
    answers: Sequence[Answer | None], index: pd.Index[Any], probabilities: Probabilities
) -> pd.DataFrame:
    """Returns answers as a frame with the index of the rows; a row without an answer has missing values.

    Columns: prediction, probability and probabilities (of a classification), id, warnings, version.
    """
    pandas = import_pandas()
    columns: dict[str, list[Any]] = {
        "prediction": [answer.prediction if answer else None for answer in answers]
    }
    if any(answer is not None and answer.probability is not None for answer in answers):
        columns["probability"] = [answer.probability if answer else None for answer in answers]
    by_class = [answer.probabilities if answer else None for answer in answers]
    classes = dict.fromkeys(itertools.chain.from_iterable(each or () for each in by_class))
    if classes and probabilities == "dict":
        columns["probabilities"] = by_class
    elif probabilities == "columns":
        for label in classes:
            columns[f"probability_{label}"] = [(each or {}).get(label) for each in by_class]
    columns["id"] = [answer.id if answer else None for answer in answers]
    columns["warnings"] = [msgspec.to_builtins(answer.warnings) if answer else [] for answer in answers]
    versions = [answer.version if answer else None for answer in answers]
    columns["version"] = versions
    frame: pd.DataFrame = pandas.DataFrame(columns, index=index)
    frame["version"] = pandas.array(versions, dtype="Int64") if None in versions else versions
    for name in columns:
        if name.startswith("probability") and name != "probabilities":
            frame[name] = frame[name].astype("float64")
    return frame


def errors_frame(errors: Sequence[RowError], index: pd.Index[Any]) -> pd.DataFrame:
    """Returns faults as a frame with the index of the rows: row (position), field, code, message, value."""
    pandas = import_pandas()
    names = ["row", "field", "code", "message", "value"]
    table = {name: [getattr(each, name) for each in errors] for name in names}
    frame: pd.DataFrame = pandas.DataFrame(table, index=index.take([each.row for each in errors]))
    return frame


def log_frame(rows: Iterable[LoggedPrediction]) -> pd.DataFrame:
    """Returns rows of the log as a frame; each input has a column ``input.NAME``, as in the CSV export."""
    pandas = import_pandas()
    frame: pd.DataFrame = pandas.DataFrame([flat(row) for row in rows])
    return frame


def flat(row: LoggedPrediction) -> dict[str, Any]:
    """Returns a row of the log without nesting."""
    plain = {name: getattr(row, name) for name in ("id", "at", "model", "version", "key", "prediction")}
    if row.probability is not None:
        plain["probability"] = row.probability
    if row.probabilities is not None:
        plain["probabilities"] = row.probabilities
    plain |= {"warnings": msgspec.to_builtins(row.warnings), "request_id": row.request_id}
    return plain | {f"input.{name}": value for name, value in row.inputs.items()}


# -- rows of a body ------------------------------------------------------------------------------------


def as_path(rows: object) -> Path | None:
    """Returns the path of a CSV file, if `rows` is one."""
    if not isinstance(rows, (str, Path)):
        return None
    path = Path(rows)
    if not path.is_file():
        raise VigiaError(f"there is no file {path}", code="unreadable_file")
    return path
