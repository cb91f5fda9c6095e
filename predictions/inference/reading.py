"""Reads a JSON body, a form or a CSV into valid rows, or reports every fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from django.conf import settings

from predictions.errors import TooManyRows
from training.serving.engine_cache import Served
from vigia_ml.schema import Instance, InvalidRows
from vigia_ml.schema.csv_dialect import Told
from vigia_ml.schema.faults import read_all
from vigia_ml.schema.json_body import decode_json
from vigia_ml.schema.row_decoder import Rows
from vigia_ml.schema.wrapping import unwrapped


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
        data = unwrapped(
            data, served.schema.declares, check_count, "the array of objects itself, or one object"
        )
    if not isinstance(data, list):
        raise InvalidRows.single(None, "not_an_object", "send a JSON object or an array of objects")
    if not data:
        raise InvalidRows.single(None, "empty_array", "the array is empty; send at least one object")
    return read_rows(served, data)


def read_rows(served: Served, rows: Sequence[object], *, text: bool = False) -> Rows:
    """Returns rows of JSON values (or of a form's text cells), all valid; see `read_body`."""
    check_count(len(rows))
    return _as_rows(served, read_all(rows, lambda raw: served.schema.read(raw, text=text)))


def read_csv(served: Served, stream: BinaryIO, dialect: Told) -> Rows:
    """Returns the rows of a CSV with header, all valid; see `read_body`."""
    from vigia_ml.schema.csv_reader import CsvReader

    reader = CsvReader(stream, served.schema, with_target=False, told=dialect)
    return _as_rows(served, reader.instances(check_count, settings.PREDICT_MAX_ROWS + 1))


def check_count(rows: int) -> None:
    if rows > settings.PREDICT_MAX_ROWS:
        raise TooManyRows(settings.PREDICT_MAX_ROWS)


def _as_rows(served: Served, instances: Sequence[Instance]) -> Rows:
    return served.compiled.from_values([each.values for each in instances], [each.key for each in instances])
