"""CSV export of the log that is safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import regex
from django.http import StreamingHttpResponse
from rest_framework.renderers import BaseRenderer

from predictions.log.queries import LogPage
from predictions.models import Prediction
from predictions.models.log import input_names

# Spreadsheets skip invisible characters: white space, control and format characters, fillers.
_BEFORE_TEXT: Final = regex.compile(r"[\s\p{Z}\p{C}\p{Default_Ignorable_Code_Point}\u2800]*+")
_BEGIN_A_FORMULA: Final = frozenset("=+-@\u2212")
_BEGIN_A_CELL: Final = ("\t", "\r", "\n")


def neutral(cell: object) -> object:
    """Returns a cell that no spreadsheet runs as a formula: an apostrophe precedes text that begins like one.

    The first visible character decides, in its compatibility form: full-width and small signs count too.
    Numbers stay numbers. See OWASP, CSV injection.
    """
    if not isinstance(cell, str):
        return cell
    first = cell[_BEFORE_TEXT.match(cell).end() :][:1]
    if unicodedata.normalize("NFKC", first)[:1] in _BEGIN_A_FORMULA or cell.startswith(_BEGIN_A_CELL):
        return f"'{cell}"
    return cell


FIXED = ("id", "at", "model", "version", "key", "prediction", "probability", "warnings", "request_id")
_WITHOUT_PROBABILITY = tuple(name for name in FIXED if name != "probability")
_AFTER_PROBABILITIES = ("warnings", "request_id")
PIECE = 2**16


def write(rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns rows as CSV, each input in its own column, and so each class's probability.

    Parameters
    ----------
    rows : of the log, as `PredictionSerializer` shows them, or of an answer.
    """
    rows = list(rows)
    fixed = [name for name in FIXED if any(name in row for row in rows)]
    inputs = list(dict.fromkeys(name for row in rows for name in row.get("inputs", {})))
    classes = list(dict.fromkeys(name for row in rows for name in row.get("probabilities", {})))
    return b"".join(_pieces(rows, fixed, inputs, classes)).decode()


def streamed(
    page: LogPage, show: Callable[[Prediction], Mapping[str, Any]], headers: Mapping[str, str]
) -> StreamingHttpResponse:
    """Returns a response that reads rows of the log, and writes them as CSV, while it is sent.

    Parameters
    ----------
    show : returns the fields of a row as the log shows them.
    """
    names = FIXED if page.has_probability else _WITHOUT_PROBABILITY
    inputs = list(
        dict.fromkeys(name for each in page.version_ids for name in input_names(page.versions[each]))
    )
    pieces = _pieces(map(show, page), names if page.version_ids else (), inputs, page.class_names)
    return StreamingHttpResponse(pieces, content_type="text/csv; charset=utf-8", headers=headers)


def _pieces(
    rows: Iterable[Mapping[str, Any]], fixed: Sequence[str], inputs: Sequence[str], classes: Sequence[str]
) -> Iterator[bytes]:
    before = [name for name in fixed if name not in _AFTER_PROBABILITIES]
    after = fixed[len(before) :]
    out = io.StringIO()
    writer = csv.writer(out)
    names = (*(f"probability_{name}" for name in classes), *after, *(f"input.{name}" for name in inputs))
    writer.writerow([*before, *map(neutral, names)])
    for row in rows:
        parts = (
            (before, row),
            (classes, row.get("probabilities", {})),
            (after, row),
            (inputs, row.get("inputs", {})),
        )
        writer.writerow([neutral(_plain(cells.get(name))) for names, cells in parts for name in names])
        if out.tell() > PIECE:
            yield out.getvalue().encode()
            out.seek(0)
            out.truncate()
    yield out.getvalue().encode()


def _plain(value: object) -> object:
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return value


class CSVRenderer(BaseRenderer):
    """Renderer for ``Accept: text/csv`` or ``?format=csv`` on the log."""

    media_type = "text/csv"
    format = "csv"
    charset = "utf-8"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None
    ) -> bytes:
        if "predictions" not in data:  # an error has no rows: it keeps the API's JSON shape
            (renderer_context or {})["response"]["Content-Type"] = "application/json"
            return json.dumps(data).encode()
        shared = {name: data[name] for name in ("model", "version") if name in data}
        return write(shared | dict(row) for row in data["predictions"]).encode()
