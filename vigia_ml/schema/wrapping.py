"""Rows as other servers and pandas wrap them: recognised, so that a refusal says what to send.

No Django here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from vigia_ml.schema.faults import Fault

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


def wrapped(
    data: Mapping[str, object], is_field: Callable[[str], bool], send: str, *, columns: bool = False
) -> Fault | None:
    """The fault of an object that holds rows instead of being one, or None.

    Parameters
    ----------
    is_field : whether a name is one of those the route reads; such a name is never taken for a wrapper.
    send : what the route reads, in words. columns : whether fields are columns, which hold no arrays.
    """
    names = set(data)
    for needed, possible, orient in _PANDAS:
        if needed <= names <= possible and not any(map(is_field, names)):
            return _fault(f'rows in pandas\' orient="{orient}" are not read here; send {send} ({RECORDS})')
    wrapper = next((name for name in _WRAPPERS if name in names and not is_field(name)), None)
    if wrapper is not None and isinstance(data[wrapper], (list, dict)):
        return _fault(f'rows inside "{wrapper}" are not read here; send {send} ({RECORDS})')
    fields = [value for name, value in data.items() if is_field(name)]
    if columns and len(data) == len(fields) > 0 and all(isinstance(value, (list, dict)) for value in fields):
        return _fault(f"an array a column is not read here; send {send} ({RECORDS})")
    return None


def _fault(said: str) -> Fault:
    return Fault(None, "wrapped_rows", said)
