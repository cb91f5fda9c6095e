"""Recognises rows that other servers or pandas wrap, so that the error says what to send. No Django here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from vigia_ml.schema.faults import InvalidRows

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
_PANDAS: Final = (
    ({"columns", "data"}, {"columns", "data", "index"}, "split"),
    ({"schema", "data"}, {"schema", "data"}, "table"),
)

_WRITTEN_INDEX: Final = re.compile(r"(?:|index|level_0|Unnamed: 0(?:\.\d+)*)")


def is_written_index(name: str) -> bool:
    """Returns whether pandas gives this name to a column that holds a frame's index.

    ``to_csv`` writes the index without a name, ``read_csv`` calls it ``Unnamed: 0``, ``reset_index`` calls it
    ``index`` or ``level_0``.
    """
    return _WRITTEN_INDEX.fullmatch(name) is not None


def refuse_wrapped(
    data: Mapping[str, object], is_field: Callable[[str], bool], send: str, *, columns: bool = False
) -> None:
    """Raises `InvalidRows` for an object that wraps rows instead of being a row.

    Parameters
    ----------
    is_field : whether the route reads a field of that name; such a name is never taken for a wrapper.
    send : the accepted format, in words. columns : whether fields are columns, which hold no arrays.
    """
    names = set(data)
    for needed, possible, orient in _PANDAS:
        if needed <= names <= possible and not any(map(is_field, names)):
            raise _error(f'pandas\' orient="{orient}" is not supported; send {send} ({RECORDS})')
    wrapper = next((name for name in _WRAPPERS if name in names and not is_field(name)), None)
    if wrapper is not None and isinstance(data[wrapper], (list, dict)):
        raise _error(f'rows inside "{wrapper}" are not supported; send {send} ({RECORDS})')
    fields = [value for name, value in data.items() if is_field(name)]
    if columns and len(data) == len(fields) > 0 and all(isinstance(value, (list, dict)) for value in fields):
        raise _error(f"one array per column is not supported; send {send} ({RECORDS})")


def _error(message: str) -> InvalidRows:
    return InvalidRows.single(None, "wrapped_rows", message)
