"""A strict JSON decoder that keeps duplicate names and huge numbers, so that faults can name them."""

from __future__ import annotations

import json
from typing import Any

from vigia_ml.errors import Malformed
from vigia_ml.schema.dataset import RepeatedNames

MAX_DIGITS = 400  # a double has at most 309 before the point


def decode_json(body: bytes) -> Any:
    """Decodes a request's body.

    `RepeatedNames.repeated` keeps duplicate names. ``NaN``, ``1e999`` and integers of thousands of
    digits become non-finite floats, which the column rejects with row and field.

    Raises
    ------
    Malformed : codes ``empty_body``, ``not_utf8``, ``invalid_json``, ``too_deep``.
    """
    if not body.strip():
        raise Malformed("the body is empty", code="empty_body")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is not valid UTF-8 at byte {error.start}", code="not_utf8") from None
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Malformed(f"the body is not valid JSON: {error.msg} at {where}", code="invalid_json") from None
    except RecursionError:
        raise Malformed("the JSON is nested too deeply", code="too_deep") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    seen: set[str] = set()
    repeated = [name for name, _ in pairs if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    result = RepeatedNames(plain)
    result.repeated = tuple(dict.fromkeys(repeated))
    return result


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else float("inf")
