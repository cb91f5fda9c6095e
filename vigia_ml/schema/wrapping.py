"""Reads rows that other servers or pandas wrap, or says what to send instead. No Django here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from vigia_ml.schema.faults import InvalidRows, clip, first_of

RECORDS: Final = 'df.to_json(orient="records") writes it'
_WRAPPERS: Final = (
    "instances",
    "inputs",
    "dataframe_records",
    "dataframe_split",
    "outcomes",
    "rows",
    "records",
)
_TAKEN: Final = ("instances", "inputs", "dataframe_records", "dataframe_split")
_PANDAS: Final = (
    ({"columns", "data"}, {"columns", "data", "index"}, "split"),
    ({"schema", "data"}, {"schema", "data"}, "table"),
)
_WRITTEN_INDEX: Final = re.compile(r"(?:index|level_0|Unnamed: 0(?:\.\d+)*)")


def is_written_index(name: str) -> bool:
    """Returns whether pandas gives this name to a column that holds a frame's index.

    ``read_csv`` calls the index that ``to_csv`` wrote ``Unnamed: 0``, ``reset_index`` calls it ``index`` or
    ``level_0``.
    """
    return _WRITTEN_INDEX.fullmatch(name) is not None


def unwrapped(
    data: Mapping[str, Any], is_field: Callable[[str], bool], check: Callable[[int], None], send: str
) -> Sequence[object]:
    """Returns the rows of an object: the object itself, or the rows that it wraps.

    It reads ``{"instances": […]}``, ``{"inputs": […]}`` and ``{"dataframe_records": […]}`` with an array of
    objects, or with one array per column; pandas' ``split``, plain or as ``{"dataframe_split": …}``; and one
    array per column (pandas' ``list`` and ``columns``).

    Parameters
    ----------
    is_field : whether the route reads a field of that name; such a name is never taken for a wrapper.
    check : called with the number of rows before they are made; raises if there are too many.
    send : the accepted format, in words.

    Raises
    ------
    InvalidRows : the wrapper is not read, or its parts do not fit together.
    """
    names = set(data)
    if not any(map(is_field, names)):
        if {"columns", "data"} <= names <= {"columns", "data", "index"}:
            return split_rows(data, check)
        wrapper = next((name for name in _TAKEN if name in names), None)
        if wrapper is not None:
            check_names(data)
            inner = data[wrapper]
            if len(names) > 1:
                beside = ", ".join(sorted(clip(name) for name in names if name != wrapper)[:5])
                raise _error(f'"{wrapper}" is read without other fields beside it; leave out {beside}')
            if isinstance(inner, Mapping):
                if {"columns", "data"} <= set(inner) <= {"columns", "data", "index"} and not (
                    is_field("columns") or is_field("data")
                ):
                    return split_rows(inner, check)
                return column_rows(inner, check) or [inner]
            if isinstance(inner, list):
                return _objects(inner, wrapper, send)
    refuse_wrapped(data, is_field, send)
    if data and all(map(is_field, names)):
        return column_rows(data, check) or [data]
    return [data]


def _objects(rows: list[Any], wrapper: str, send: str) -> Sequence[object]:
    if not rows:
        raise InvalidRows.single(None, "empty_array", f'"{wrapper}" is empty; send at least one object')
    first = rows[0]
    if isinstance(first, Mapping) and {"name", "shape", "datatype", "data"} <= set(first):
        raise _error(f'tensors inside "{wrapper}" are not supported; send {send} ({RECORDS})')
    if not isinstance(first, Mapping):
        raise _error(
            f'"{wrapper}" must hold objects with the names of the columns, not lists of values; send {send} '
            f"({RECORDS})"
        )
    return rows


def check_names(data: Mapping[str, Any]) -> None:
    """Raises `InvalidRows` if a name stands twice in an object that wraps rows; see `RepeatedNames`."""
    for name in getattr(data, "repeated", ()):
        raise InvalidRows.single(clip(name), "duplicate_field", f"{clip(name)} is given twice")


def split_rows(data: Mapping[str, Any], check: Callable[[int], None]) -> Sequence[object]:
    """Returns the rows of pandas' split form; the labels of the index are not read."""
    check_names(data)
    columns, rows, index = data["columns"], data["data"], data.get("index")
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise _error('"columns" must be an array of names')
    if not isinstance(rows, list):
        raise _error('"data" must be an array of rows, each an array of values')
    twice = next((name for at, name in enumerate(columns[:1_000]) if name in columns[:at]), None)
    if twice is not None or len(set(columns)) < len(columns):
        message = f"{clip(twice or columns[0])} is given twice in columns"
        raise InvalidRows.single(clip(twice or columns[0]), "duplicate_field", message)
    if not rows:
        raise InvalidRows.single(None, "empty_array", '"data" is empty; send at least one row')
    if index is not None and not (isinstance(index, list) and len(index) == len(rows)):
        raise _error('"index" must be an array with one label for each row of "data"; it may be left out')
    check(len(rows))
    return named_rows(columns, rows, '"data"', f'"columns" has {len(columns)} names')


def named_rows(
    names: Sequence[str], rows: Sequence[object], where: str, expected: str
) -> Sequence[dict[str, Any]]:
    """Returns arrays of values as objects with these names.

    Parameters
    ----------
    where : the array that holds the rows. expected : says how many values a row must have.

    Raises
    ------
    InvalidRows : a row is no array, or has more or fewer values than there are names.
    """
    for at, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            found = f"{len(row)} values" if isinstance(row, list) else "no array"
            raise _error(f"row {at} of {where} holds {found}; {expected}")
    return [dict(zip(names, row, strict=True)) for row in rows]  # type: ignore[call-overload]


def column_rows(data: Mapping[str, Any], check: Callable[[int], None]) -> Sequence[object]:
    """Returns the rows of arrays (or of objects by index), one per column; empty for other values."""
    columns = list(data.values())
    if not columns or not all(isinstance(values, list | Mapping) for values in columns):
        return []
    check_names(data)
    first = columns[0]
    if isinstance(first, Mapping):
        index = list(first)
        check(len(index))
        for values in columns:
            if not isinstance(values, Mapping) or set(values) != set(first):
                raise _error("the columns hold different rows: every column must have the same index")
            check_names(values)
        columns = [[values[label] for label in index] for values in columns]
    elif not all(isinstance(values, list) and len(values) == len(first) for values in columns):
        lengths = [
            f"{clip(name)} {len(values) if isinstance(values, list) else 'no array'}"
            for name, values in data.items()
        ]
        raise _error(
            f"the columns have different lengths ({first_of(lengths, 5)}): every column must hold one value "
            "per row"
        )
    if not columns[0]:
        raise InvalidRows.single(None, "empty_array", "the columns are empty; send at least one row")
    check(len(columns[0]))
    return [dict(zip(data, row, strict=True)) for row in zip(*columns, strict=True)]


def refuse_wrapped(data: Mapping[str, object], is_field: Callable[[str], bool], send: str) -> None:
    """Raises `InvalidRows` for an object that wraps rows instead of being a row.

    Parameters
    ----------
    is_field : whether the route reads a field of that name; such a name is never taken for a wrapper.
    send : the accepted format, in words.
    """
    names = set(data)
    for needed, possible, orient in _PANDAS:
        if needed <= names <= possible and not any(map(is_field, names)):
            raise _error(f'pandas\' orient="{orient}" is not supported; send {send} ({RECORDS})')
    wrapper = next((name for name in _WRAPPERS if name in names and not is_field(name)), None)
    if wrapper is not None and isinstance(data[wrapper], (list, dict)):
        raise _error(f'rows inside "{wrapper}" are not supported; send {send} ({RECORDS})')


def _error(message: str) -> InvalidRows:
    return InvalidRows.single(None, "wrapped_rows", message)
