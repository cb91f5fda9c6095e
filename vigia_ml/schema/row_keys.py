"""The client's own reference for a row."""

from __future__ import annotations

import re
from typing import Final

from vigia_ml.schema.columns import is_storable
from vigia_ml.schema.faults import Fault, clip, echo

KEY_FIELD: Final = "_key"
KEY_LENGTH: Final = 200
SHORTENED: Final = re.compile(r"-?[0-9](?:[.,][0-9]+)?E\+[0-9]{2,}")
"""How Excel and its like save a number of 12 digits and more: 1285704473650888702 as 1.28570447365089E+18."""


def read_key(value: object, name: str) -> str | Fault | None:
    """The key a client gave under `name`: text or a whole number, at most `KEY_LENGTH` characters.

    Returns
    -------
    The key as text, None for none, or the fault.
    """
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return str(value)
    if not isinstance(value, str):
        return Fault(clip(name), "bad_key", "the key must be text", echo(value), has_value=True)
    if len(value) > KEY_LENGTH:
        why = f"the key must have at most {KEY_LENGTH} characters"
        return Fault(clip(name), "too_long", why, echo(value), has_value=True)
    if not is_storable(value):
        why = "the key must not hold NUL or lone surrogates"
        return Fault(clip(name), "bad_text", why, echo(value), has_value=True)
    if "E+" in value and SHORTENED.fullmatch(value):
        why = (
            "the key is a number that a spreadsheet has shortened, so other rows may have the same: "
            "make the column text and export it again"
        )
        return Fault(clip(name), "shortened_key", why, echo(value), has_value=True)
    return value
