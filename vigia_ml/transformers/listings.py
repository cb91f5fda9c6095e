"""Readers of a used car's listing: each turns one text into numbers, keys and tokens.

Python without pandas and scikit-learn, because the fast path reads texts with the same functions as the
fitted pipeline (`vigia_ml.transformers.cars`).
"""

from __future__ import annotations

import math
import re
from typing import Final

from vigia_ml.transformers.plain import clean

NM_PER_KGM: Final = 9.80665  # newton metres in a kilogram-force metre, exactly
NAME_LEVELS: Final = ("brand", "model", "line", "variant")
FIRST_NAME_FIELD: Final = 4  # the fields before are the listing's categories, see `field_tokens`

_LITRES = re.compile(r"(?<![\d.\-])([1-6]\.\d)(?!\d)")
_BMW_BADGE = re.compile(r"(\d\d)\s?l?[di]\b")
_OTHER_BADGE = re.compile(r"\b[a-z]{0,3}([1-6]\d0)\s?(?:d|cdi)?\b")
_COMMA = re.compile(r"(?<=\d),(?=\d)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_TWO_WORD_BRANDS = ("land", "ashok")
MAX_KGM: Final = 80.0
MIN_NM: Final = 45.0


def name_parts(name: str) -> tuple[str, str, str]:
    """Returns brand, model and line of a cleaned name, each with its parents.

    ``"bmw 5 series 520d luxury line"`` -> ``("bmw", "bmw 5", "bmw 5 series")``.
    """
    words = name.split()
    n = 1 + (words[0] in _TWO_WORD_BRANDS)
    return " ".join(words[:n]), " ".join(words[: n + 1]), " ".join(words[: n + 2])


def name_litres(name: str) -> float:
    """Returns the engine's litres in a cleaned name, else NaN.

    They are written out (``"2.0 tdi"``), or in a badge: BMW's last two digits (``520d`` -> 2.0),
    other makes' hundreds (``e250`` -> 2.5).
    """
    if found := _LITRES.search(name):
        return float(found[1])
    bmw = name.startswith("bmw")
    found = (_BMW_BADGE if bmw else _OTHER_BADGE).search(name)
    litres = float(found[1]) / (10.0 if bmw else 100.0) if found else math.nan
    return litres if 1.0 <= litres <= 6.5 else math.nan


def number_in(text: str) -> float:
    """Returns the first number in a cleaned text (thousands commas allowed), else NaN."""
    found = _NUMBER.search(_COMMA.sub("", text))
    return float(found[0]) if found else math.nan


def torque_in_nm(text: str) -> float:
    """Returns the torque in Nm: the first number, times 9.80665 if its unit is kgm; without a number NaN.

    Beyond 80 "kgm" (785 Nm) the unit is a mistake for Nm (``115@ 2,500(kgm@ rpm)`` is a
    115 Nm hatchback); without a unit, less than 45 is kgm.
    """
    value = number_in(text)
    kgm, nm = text.find("kgm"), text.find("nm")
    if kgm < 0 and nm < 0:
        return value * NM_PER_KGM if value < MIN_NM else value
    is_kgm = kgm >= 0 and (nm < 0 or kgm < nm)
    return value * NM_PER_KGM if is_kgm and value <= MAX_KGM else value


def is_per_kg(text: str) -> float:
    """Returns 1 for a cleaned mileage in km/kg, 0 for another unit, NaN without a number."""
    return math.nan if math.isnan(number_in(text)) else float("km/kg" in text)


def field_tokens(position: int, text: str) -> list[str]:
    """Returns the tokens of one cleaned field, twice for categories and brand (see `CarColumns`)."""
    token = f"{position}={text.replace(' ', '_')}"
    return [token, token] if position <= FIRST_NAME_FIELD else [token]


def name_tokens(name: str) -> list[str]:
    """Returns the tokens of a cleaned name: its levels, then each of its words once."""
    levels = (*name_parts(name), name)
    found = [
        token for place, level in enumerate(levels) for token in field_tokens(FIRST_NAME_FIELD + place, level)
    ]
    return [*found, *dict.fromkeys(name.split())]


# -- for `vigia_ml.engines.texts` ----------------------------------------------------------------------

Reading = tuple[tuple[float, ...], tuple[str, ...], list[str]]


def read_name(text: str | None) -> Reading:
    """Reads (litres), the four levels and the tokens of a name."""
    name = clean(text)
    return (name_litres(name),), (*name_parts(name), name), name_tokens(name)


def read_mileage(text: str | None) -> Reading:
    """Reads (distance, whether it is per kilogram)."""
    cleaned = clean(text)
    return (number_in(cleaned), is_per_kg(cleaned)), (), []


def read_number(text: str | None) -> Reading:
    """Reads (the first number)."""
    return (number_in(clean(text)),), (), []


def read_torque(text: str | None) -> Reading:
    """Reads (torque in Nm)."""
    return (torque_in_nm(clean(text)),), (), []
