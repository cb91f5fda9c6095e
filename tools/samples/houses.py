"""Homes for sale in and around Madrid: what do they cost? In the form of the published listing file.

The homes are made up. The relations, in words:

- A square metre is dearest in the centre and falls off with distance. On that lie bumps: dear quarters
  (the north-east of the centre, the western suburbs) and cheap ones (the south). Half of the homes lie in
  the city, most others in or near a town of the region, a few in open country.
- Price grows a little slower than surface. More bathrooms, a lift (above all downtown), a garage, a
  garden and a good condition add; age takes off until about 50 years. Houses cost less a square
  metre than flats, penthouses and small homes more.
- On top comes a multiplicative deviation of about 14 %, which no model can foresee.
- The dirt of the published file is here too: `condition` starts with a space; most ages and half of the
  net surfaces are empty, a few conditions, rooms, bathrooms and coordinates as well; the eight columns
  that should count street words all hold one and the same number, which says nothing about the price.

The committed file is `python -m tools.samples` with its default seed (`tools.samples.SEED`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from tools.samples.draws import Draws, Row

STREET_WORDS: Final = ("bulevar", "calle", "avenida", "parque", "autovia", "plaza", "paseo", "carretera")
COLUMNS: Final = (
    "price",
    "updated",
    "surface",
    "lat",
    "lng",
    "type",
    *STREET_WORDS,
    "publisher",
    "age",
    "garage",
    "lift",
    "net_surface",
    "garden",
    "rooms",
    "condition",
    "bathrooms",
)
ROWS: Final = 1_500

CENTRE: Final = (40.4169, -3.7035)  # latitude, longitude in degrees
KM_A_DEGREE: Final = (111.2, 84.7)  # north-south and, at this latitude, east-west
FIRST_UPDATE: Final = 1_672_531_200  # 1 January 2023, in seconds since 1970
LOWEST, HIGHEST = 22_000, 1_250_000  # euros: what the listing shows
SMALLEST, LARGEST = 18.0, 275.0  # square metres

# Towns of the region: (km east, km north of the centre, how many homes).
# fmt: off
TOWNS: Final = (
    (28.5, 7.4, 1.6), (22.0, 5.0, 0.9), (5.6, 14.8, 0.9), (5.0, 15.9, 0.7), (-9.2, 1.9, 0.9),
    (-14.4, 6.2, 0.7), (-14.6, 8.5, 1.0), (-13.6, -10.4, 1.3), (-10.2, -7.6, 0.9), (-5.2, -9.9, 0.9),
    (-2.4, -12.4, 0.9), (-8.0, -14.8, 1.1), (-5.6, -19.5, 0.9), (-25.5, 24.0, 1.2), (6.5, -42.4, 0.8),
    (20.2, -11.8, 0.7), (1.0, 27.0, 0.6), (-22.0, -21.5, 0.8),
)
# Bumps on the price of a square metre: (km east, km north, reach in km, effect on the logarithm).
BUMPS: Final = (
    (2.0, 1.4, 1.6, 0.38), (1.0, 3.4, 2.2, 0.18), (4.5, 6.0, 2.5, 0.15), (-10.0, 2.5, 3.5, 0.30),
    (5.5, 14.5, 4.0, 0.34), (-14.5, 7.5, 3.5, 0.22), (1.0, -4.5, 2.5, -0.38), (-3.5, -4.0, 2.0, -0.26),
    (4.0, -3.0, 2.0, -0.22), (-6.0, -14.0, 5.0, -0.10), (6.5, -42.0, 6.0, -0.18), (28.5, 7.4, 5.0, 0.06),
)
# fmt: on

# Type: (share in the city, share elsewhere, usual surface, spread of its logarithm, effect on price).
TYPES: Final = {
    "Piso": (0.85, 0.70, 86.0, 0.36, 0.0),
    "Casa": (0.01, 0.13, 175.0, 0.28, -0.16),
    "Chalet": (0.01, 0.08, 185.0, 0.25, -0.11),
    "Dúplex": (0.025, 0.04, 120.0, 0.30, 0.01),
    "Ático": (0.04, 0.025, 110.0, 0.36, 0.13),
    "Apartamento": (0.035, 0.01, 62.0, 0.28, 0.06),
    "Estudio": (0.02, 0.004, 41.0, 0.24, 0.05),
    "Loft": (0.01, 0.006, 74.0, 0.30, 0.03),
    "Finca": (0.0, 0.005, 140.0, 0.35, -0.25),
}
HOUSES: Final = frozenset({"Casa", "Chalet", "Finca"})
CONDITIONS: Final = {
    " En buen estado": 0.51,
    "": 0.23,
    " A estrenar": 0.10,
    " A reformar": 0.10,
    " Reformado": 0.06,
}
CONDITION_EFFECT: Final = {
    " En buen estado": 0.0,
    "": 0.0,
    " A estrenar": 0.11,
    " A reformar": -0.15,
    " Reformado": 0.07,
}
AGES: Final = {0: 0.05, 5: 0.05, 10: 0.17, 20: 0.19, 30: 0.25, 50: 0.29}


def rows(count: int, rng: np.random.Generator) -> Iterator[Row]:
    """`count` homes within the listing's limits of price."""
    draws, given = Draws(rng), 0
    while given < count:
        row = _home(draws)
        if LOWEST <= float(row["price"]) <= HIGHEST:
            given += 1
            yield row


def _home(draws: Draws) -> Row:
    in_city = draws.chance(0.5)
    east, north = _place(draws, in_city)
    kind = draws.pick({name: entry[0 if in_city else 1] for name, entry in TYPES.items()})
    _, _, usual, spread, kind_effect = TYPES[kind]
    surface = round(min(max(usual * math.exp(draws.normal(0.0, spread)), SMALLEST), LARGEST))
    rooms = min(max(round(surface / 38.0 + draws.normal(0.3, 0.55)), 1), 9)
    rooms = 1 if kind in ("Estudio", "Loft") else rooms
    bathrooms = min(max(round(surface / 68.0 + draws.normal(0.25, 0.35)), 1), 6)
    condition = draws.pick(CONDITIONS)
    age = _age(draws, condition)
    house = kind in HOUSES
    lift = not house and draws.chance(0.72 - 0.006 * age + (0.1 if surface > 90 else 0.0))
    garage = draws.chance(0.62 if house else 0.55 - 0.009 * age - (0.15 if in_city else 0.0))
    garden = draws.chance(0.45 if house else 0.13 - 0.002 * age)

    logarithm = _square_metre(east, north) + math.log(surface) - 0.10 * math.log(surface / 90.0)
    logarithm += kind_effect + CONDITION_EFFECT[condition] - 0.004 * age + 0.09 * (bathrooms - 1)
    logarithm += (0.17 if in_city else 0.10) * lift + 0.08 * garage + 0.06 * garden
    price = round(math.exp(logarithm + draws.normal(0.0, 0.14)), -3)

    located, counted = not draws.chance(0.003), draws.pick({0: 0.52, 1: 0.34, 2: 0.13, 3: 0.01})
    net = round(surface * min(draws.normal(0.89, 0.05), 1.0))
    updated = FIRST_UPDATE + 86_400 * draws.whole(0, 29) + 60 * draws.whole(0, 1_439)
    return {
        "price": f"{price:.1f}",
        "updated": f"{updated}.0",
        "surface": f"{surface}.0",
        "lat": f"{CENTRE[0] + north / KM_A_DEGREE[0]:.7f}" if located else "",
        "lng": f"{CENTRE[1] + east / KM_A_DEGREE[1]:.7f}" if located else "",
        "type": kind,
        **dict.fromkeys(STREET_WORDS, str(counted)),
        "publisher": draws.pick({"inmobiliaria": 0.973, "particular": 0.027}),
        "age": f"{age}.0" if draws.chance(0.23) else "",
        "garage": _yes(garage),
        "lift": _yes(lift),
        "net_surface": f"{net}.0" if draws.chance(0.48) else "",
        "garden": _yes(garden),
        "rooms": f"{rooms}.0" if draws.chance(0.96) else "",
        "condition": condition,
        "bathrooms": f"{bathrooms}.0" if draws.chance(0.96) else "",
    }


def _age(draws: Draws, condition: str) -> int:
    """Years; the listing only knows these steps. What was never lived in is new, what needs work is not."""
    if condition == " A estrenar":
        return 0
    youngest = 20 if condition in (" A reformar", " Reformado") else 0
    return draws.pick({age: weight for age, weight in AGES.items() if age >= youngest})


def _place(draws: Draws, in_city: bool) -> tuple[float, float]:
    """Kilometres east and north of the centre."""
    if in_city:
        return draws.normal(0.8, 3.2), draws.normal(0.4, 3.6)
    if draws.chance(0.08):
        return draws.normal(0.0, 22.0), draws.normal(4.0, 22.0)
    east, north, _ = draws.pick({town: town[2] for town in TOWNS})
    return draws.normal(east, 1.6), draws.normal(north, 1.6)


def _square_metre(east: float, north: float) -> float:
    """Natural logarithm of the usual price of a square metre at a place, in euros."""
    distance = math.hypot(east, north)
    level = math.log(1_100.0 + 4_300.0 * math.exp(-distance / 8.5))
    for bump_east, bump_north, reach, effect in BUMPS:
        away = math.hypot(east - bump_east, north - bump_north) / reach
        level += effect * math.exp(-(away**2) / 2)
    return level


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"
