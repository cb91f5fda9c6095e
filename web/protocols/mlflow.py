"""MLflow's scoring protocol: reads the bodies of ``/invocations`` as rows of a version, and shapes answers.

`read_json` decides what a body means and reports its faults. `read_quickly` recognises only valid bodies and
returns the same rows; msgspec decodes them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from django.conf import settings
from msgspec import UNSET, Raw, UnsetType

from predictions.errors import TooManyRows
from predictions.inference import reading
from predictions.inference.pipeline import Prepared
from training.serving.engine_cache import Served
from vigia_ml.errors import Malformed
from vigia_ml.schema import DatasetSchema, Fault, InvalidRows
from vigia_ml.schema.csv_dialect import Told
from vigia_ml.schema.faults import clip, first_of
from vigia_ml.schema.json_body import decode_json
from vigia_ml.schema.row_decoder import Rows
from vigia_ml.schema.row_keys import read_key
from vigia_ml.schema.wrapping import check_names, column_rows, named_rows, split_rows
from web.protocols.fast import HeaderLines

if TYPE_CHECKING:
    from training.serving.routing import RoutedVersion
    from web.fast_path import RequestHead

FORMATS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")
SEND: Final = f"send a JSON object with exactly one of {', '.join(FORMATS)}"
LISTED_NAMES: Final = 40
_TENSOR: Final = frozenset(("name", "shape", "datatype", "data"))
JSON_TYPES: Final = frozenset(
    (b"", b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8")
)
CSV_TYPES: Final = frozenset((b"text/csv", b"text/csv; charset=utf-8", b"text/csv;charset=utf-8"))


class FastMlflow:
    """MLflow's protocol on the fast path; see `web.protocols.fast.FastProtocol`."""

    def admits(self, head: RequestHead) -> bool:
        return head.content_type.lower() in JSON_TYPES | CSV_TYPES

    def read(
        self, served: Served, version: RoutedVersion, body: bytes, head: RequestHead
    ) -> tuple[Rows, Any] | None:
        try:
            is_csv = head.content_type.lower() in CSV_TYPES
            rows = (
                reading.read_csv(served, io.BytesIO(body), Told()) if is_csv else read_quickly(served, body)
            )
        except (InvalidRows, TooManyRows):
            return None
        return None if rows is None else (rows, None)

    def write(self, prepared: Prepared, context: Any) -> tuple[bytes, HeaderLines]:
        """Returns the same body as `shape`, made from encoded values."""
        head = b'{"predictions":[%s],"model":"%s","version":%d,"ids":["%s"]' % (
            b",".join(prepared.values),
            prepared.served.model_name.encode(),
            prepared.served.number,
            b'","'.join(prepared.ids),
        )
        columns = {
            b"probability": prepared.probabilities,
            b"probabilities": prepared.by_class,
            b"warnings": prepared.warnings,
        }
        others = [
            b',"%s":[%s]' % (name, b",".join(cells)) for name, cells in columns.items() if cells is not None
        ]
        return b"%s%s}" % (head, b"".join(others)), ()


def shape(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a native answer in MLflow's shape: the predictions alone, as a model's ``predict`` gives them.

    MLflow's clients leave the other fields unread. They hold the native answer's other parts, each as an
    array with one element per row.
    """
    rows = answer["predictions"]
    shaped = {"predictions": [row["prediction"] for row in rows]}
    shaped |= {"model": answer["model"], "version": answer["version"], "ids": [row["id"] for row in rows]}
    for name in ("probability", "probabilities", "warnings"):
        if name in rows[0]:
            shaped[name] = [row[name] for row in rows]
    return shaped


# -- bodies that are recognised quickly ----------------------------------------------------------------


class _Split(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    columns: Raw
    data: Raw
    index: Raw | UnsetType = UNSET


class _Body(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    dataframe_split: _Split | UnsetType = UNSET
    dataframe_records: Raw | UnsetType = UNSET
    instances: Raw | UnsetType = UNSET
    inputs: Raw | UnsetType = UNSET
    params: Raw | UnsetType = UNSET


_body: Final = msgspec.json.Decoder(_Body).decode
_names: Final = msgspec.json.Decoder(list[str]).decode
_table: Final = msgspec.json.Decoder(list[list[Any]]).decode
_labels: Final = msgspec.json.Decoder(list[Any]).decode


def read_quickly(served: Served, body: bytes) -> Rows | None:
    """Returns the rows of a valid body; None when only `read_json` can decide."""
    try:
        given = _body(body)
        split, wrapped = given.dataframe_split, [given.dataframe_records, given.instances, given.inputs]
        parts = [bytes(part) for part in (*wrapped, given.params) if part is not UNSET]
        if split is not UNSET:
            parts += [bytes(part) for part in (split.columns, split.data, split.index) if part is not UNSET]
        fields = len(parts) + (split is not UNSET)
        # A name that stands twice has a colon that no field accounts for.
        if body.count(b":") != fields + sum([part.count(b":") for part in parts]):
            return None
        if given.params is not UNSET:
            msgspec.json.decode(given.params)
        if (split is not UNSET) + sum([part is not UNSET for part in wrapped]) != 1:
            return None
        if split is UNSET:
            return _quick_rows(served, parts[0], records=given.dataframe_records is not UNSET)
        rows = _table(split.data)
        if split.index is not UNSET and len(_labels(split.index)) != len(rows):
            return None
        return _quick_table(served, _names(split.columns), rows)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _quick_rows(served: Served, rows: bytes, *, records: bool) -> Rows | None:
    start = rows[:64].replace(b" ", b"")[:2]
    if start == b"[[" and not records:
        return _quick_table(served, served.schema.names, _table(rows))
    if start[:1] == b"[" or not records:
        return served.compiled.decode(rows, settings.PREDICT_MAX_ROWS)
    return None


def _quick_table(served: Served, names: Sequence[str], rows: Sequence[list[Any]]) -> Rows | None:
    """Returns rows whose values have these names, all valid; else None."""
    compiled, width, key = served.compiled, len(names), -1
    if not 0 < len(rows) <= settings.PREDICT_MAX_ROWS or set(map(len, rows)) != {width}:
        return None
    if len(set(names)) < width:
        return None
    order = [-1] * len(compiled.places)
    for at, name in enumerate(names):
        role, column = served.schema.resolve(name)
        if role == "feature" and column is not None and order[compiled.places[column.name]] < 0:
            order[compiled.places[column.name]] = at
        elif role == "key" and key < 0:
            key = at
        elif role not in ("target", "weight", "ignored"):
            return None
    keys: list[str | None] = []
    for row in rows if key >= 0 else ():
        read = read_key(row[key], names[key])
        if isinstance(read, Fault):
            return None
        keys.append(read)
    ordered = [tuple([None if at < 0 else row[at] for at in order]) for row in rows]
    return compiled.accept(ordered, keys or [None] * len(rows))


# -- all bodies ----------------------------------------------------------------------------------------


def read_json(served: Served, body: bytes) -> Rows:
    """Returns the rows of a JSON body, all valid.

    As in MLflow's own server, ``params`` and unknown fields beside the rows are ignored.

    Raises
    ------
    InvalidRows : holds every fault of every row. TooManyRows : see settings.PREDICT_MAX_ROWS.
    Malformed : the body is not JSON, or its form is none of those that MLflow's server reads.
    """
    known = read_quickly(served, body)
    if known is not None:
        return known
    data = decode_json(body)
    given = [name for name in FORMATS if isinstance(data, dict) and name in data]
    if len(given) != 1:
        raise _unread(f"the body has {' and '.join(given)}; {SEND}" if given else SEND)
    check_names(data)
    [name] = given
    if name == "dataframe_split":
        return _read_split(served, data[name])
    return _read_wrapped(served, name, data[name])


def _read_split(served: Served, split: object) -> Rows:
    if not isinstance(split, dict) or not {"columns", "data"} <= set(split) <= {"columns", "data", "index"}:
        raise _unread(
            '"dataframe_split" must be an object with columns (the names), data (the rows) and, if you like, '
            'index; df.to_dict(orient="split") writes it'
        )
    return reading.read_rows(served, split_rows(split, reading.check_count))


def _read_wrapped(served: Served, name: str, wrapped: object) -> Rows:
    if isinstance(wrapped, dict) and name != "dataframe_records":
        return reading.read_rows(served, column_rows(wrapped, reading.check_count) or [wrapped])
    if not isinstance(wrapped, list):
        accepted = "an array of objects"
        accepted += "" if name == "dataframe_records" else ", an array of rows, or an object of columns"
        raise _unread(f'"{name}" must be {accepted}')
    if not wrapped:
        raise InvalidRows.single(None, "empty_array", f'"{name}" is empty; send at least one row')
    reading.check_count(len(wrapped))
    first = wrapped[0]
    if isinstance(first, dict) and set(first) >= _TENSOR and not served.schema.declares("datatype"):
        raise _unread(
            f'"{name}" holds tensors of the Open Inference Protocol; send them to '
            f"/v2/models/{served.model_name}/infer"
        )
    if isinstance(first, dict) or name == "dataframe_records":
        rows = reading.read_rows(served, wrapped)
        served.compiled.learn(first)
        return rows
    return _read_positions(served, name, wrapped)


def _read_positions(served: Served, name: str, values: Sequence[object]) -> Rows:
    """Returns the rows of values without names: each row has every column, in the schema's order."""
    names = served.schema.names
    if len(names) == 1 and not any(isinstance(value, list) for value in values):
        values = [[value] for value in values]  # of one column, as MLflow's server reads it
    elif not isinstance(values[0], list):
        raise _unread(
            f'"{name}" is a list of single values, which may be one row or one column; send one array per '
            "row, or objects with the names of the columns"
        )
    expected = (
        f"without names, a row must hold the {len(names)} features in the schema's order "
        f"({first_of([clip(each) for each in names], LISTED_NAMES)}), without {_left_out(served.schema)}; "
        'with other columns, send "dataframe_split", which names them'
    )
    return reading.read_rows(served, named_rows(names, values, f'"{name}"', expected))


def _unread(message: str) -> Malformed:
    return Malformed(message, code="unknown_form")


def _left_out(schema: DatasetSchema) -> str:
    key = () if schema.key is None else (f"the key {schema.key}",)
    return " and ".join((f"the target {schema.target.name}", *key))


def read_csv(served: Served, body: bytes) -> Rows:
    """Returns the rows of a CSV with header, all valid; pandas' index without a name is not read."""
    return reading.read_csv(served, io.BytesIO(body), Told())
