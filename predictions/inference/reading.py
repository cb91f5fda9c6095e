"""Reads a JSON body, a form or a CSV into valid rows, or reports every fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from django.conf import settings

from predictions.errors import TooManyRows
from training.serving.engine_cache import Served
from vigia_ml.schema import Fault, Instance, InvalidRows
from vigia_ml.schema.csv_dialect import Told
from vigia_ml.schema.faults import REPORTED_FAULTS
from vigia_ml.schema.json_body import decode_json
from vigia_ml.schema.row_decoder import Rows
from vigia_ml.schema.wrapping import wrapped


def read_body(served: Served, body: bytes) -> Rows:
    """Returns the rows of a JSON body, all valid.

    The compiled decoder accepts the bodies that it recognises; `read_json` reads the others: it is slower,
    accepts every spelling and collects every fault.

    Raises
    ------
    InvalidRows : holds every fault of every row. TooManyRows : see settings.PREDICT_MAX_ROWS.
    Malformed : the body is not JSON.
    """
    decoded = served.compiled.decode(body, settings.PREDICT_MAX_ROWS)
    if decoded is not None:
        return decoded
    data = decode_json(body)
    rows = read_json(served, data)
    served.compiled.learn(data[0] if isinstance(data, list) else data)
    return rows


def read_json(served: Served, data: object) -> Rows:
    """Returns the rows of a decoded object or array of objects, all valid; see `read_body`."""
    if isinstance(data, dict):
        _refuse_wrapped(served, data)
        data = [data]
    if not isinstance(data, list):
        fault = Fault(None, "not_an_object", "send a JSON object or an array of objects")
        raise InvalidRows([fault], message=fault.message)
    if not data:
        message = "the array is empty; send at least one object"
        raise InvalidRows([Fault(None, "empty_array", message)], message=message)
    return read_rows(served, data)


def _refuse_wrapped(served: Served, data: dict[str, object]) -> None:
    """Raises `InvalidRows` for an object that holds rows, as pandas or other servers write them."""

    def is_field(name: str) -> bool:
        return served.schema.role(name) != "unknown"

    fault = wrapped(data, is_field, "the array of objects itself, or one object", columns=True)
    if fault is not None:
        raise InvalidRows([fault], message=fault.message)


def read_rows(served: Served, rows: Sequence[object], *, text: bool = False) -> Rows:
    """Returns rows of JSON values (or of a form's text cells), all valid; see `read_body`."""
    if len(rows) > settings.PREDICT_MAX_ROWS:
        raise TooManyRows(settings.PREDICT_MAX_ROWS)
    good: list[Instance] = []
    faults: list[Fault] = []
    bad = 0
    for position, raw in enumerate(rows):
        row = served.schema.read(raw, text=text)
        if isinstance(row, Instance):
            good.append(row)
        else:
            bad += 1
            faults.extend(fault.at(row=position) for fault in row)
            if len(faults) > REPORTED_FAULTS:
                break  # further faults are not reported, and a client must not buy that work cheaply
    if faults:
        raise InvalidRows(faults, rows=len(rows), bad=bad)
    return _as_rows(served, good)


def read_csv(served: Served, stream: BinaryIO, dialect: Told) -> Rows:
    """Returns the rows of a CSV with header, all valid; see `read_body`."""
    from vigia_ml.schema.csv_reader import CsvReader

    reader = CsvReader(stream, served.schema, with_target=False, told=dialect)
    good: list[Instance] = []
    faults: list[Fault] = []
    rows = bad = 0
    for batch in reader.batches(settings.PREDICT_MAX_ROWS + 1):
        rows += batch.seen_rows
        if rows > settings.PREDICT_MAX_ROWS:
            raise TooManyRows(settings.PREDICT_MAX_ROWS)
        bad += len(batch.refused)
        faults.extend(batch.faults[: REPORTED_FAULTS + 1])
        good.extend(batch.instances(served.schema))
    if faults:
        raise InvalidRows(faults, rows=rows, bad=bad, what="rows")
    if not good:
        message = "the CSV holds a header and no rows; send at least one row"
        raise InvalidRows([Fault(None, "empty_file", message)], message=message)
    return _as_rows(served, good)


def _as_rows(served: Served, instances: Sequence[Instance]) -> Rows:
    return served.compiled.from_values([each.values for each in instances], [each.key for each in instances])
