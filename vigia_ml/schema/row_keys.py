"""The client key of a row."""

from __future__ import annotations

import re
from typing import Final

from vigia_ml.schema.columns import is_storable
from vigia_ml.schema.faults import Fault, clip, echo

KEY_FIELD: Final = "_key"
KEY_LENGTH: Final = 200
SHORTENED: Final = re.compile(r"-?[0-9](?:[.,][0-9]+)?E\+[0-9]{2,}")
"""Numbers of 12 digits and more as spreadsheets save them: 1285704473650888702 as 1.28570447365089E+18."""


def read_key(value: object, name: str) -> str | Fault | None:
    """Validates the client key in the field `name`: text or a whole number, at most `KEY_LENGTH` characters.

    Returns
    -------
    The key as text, None for an empty value, or the fault.
    """
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return str(value)
    if not isinstance(value, str):
        code, message = "bad_key", "the key must be text"
    elif len(value) > KEY_LENGTH:
        code, message = "too_long", f"the key must have at most {KEY_LENGTH} characters"
    elif not is_storable(value):
        code, message = "bad_text", "the key must not hold NUL or lone surrogates"
    elif "E+" in value and SHORTENED.fullmatch(value):
        code = "shortened_key"
        message = (
            "the key is a number that a spreadsheet has shortened, so other rows may have the same key: "
            "format the column as text and export the file again"
        )
    else:
        return value
    return Fault(clip(name), code, message, echo(value), has_value=True)
