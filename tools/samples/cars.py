"""Used cars on offer in India: what are they asked for? In the form of the first CarDekho file.

The makes and models exist, the offers are made up. The relations, in words:

- A model has a price when new; a richer trim, a diesel engine and an automatic gearbox add to it.
- It loses a fixed share every year: Maruti, Toyota, Hyundai and Honda least, premium makes most.
  These are never offered older than seven years.
- More kilometres than usual for its age and fuel, and every former owner, take some more off;
  dealers ask more than private sellers.
- On top comes a multiplicative deviation of about 12 %, which no model can foresee.
- About one row in twenty is an exact repeat of an earlier one: such files hold them, and a split that
  leaves them in flatters its scores.

The committed file is `python -m tools.samples` with its default seed (`tools.samples.SEED`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from tools.samples import car_models
from tools.samples.draws import Draws, Row, with_repeats

COLUMNS: Final = (
    "name",
    "year",
    "selling_price",
    "km_driven",
    "fuel",
    "seller_type",
    "transmission",
    "owner",
)
ROWS: Final = 1_500
REPEATED: Final = 0.05


def rows(count: int, rng: np.random.Generator) -> Iterator[Row]:
    """`count` offers, a few of them repeated."""
    draws = Draws(rng)
    return with_repeats(_offers(draws), count, REPEATED, draws)


def _offers(draws: Draws) -> Iterator[Row]:
    while True:
        yield described(car_models.offer(draws, electric=True))


def described(offer: car_models.Offer) -> Row:
    """The columns both car files have."""
    return {
        "name": offer.name,
        "year": str(offer.year),
        "selling_price": str(offer.price),
        "km_driven": str(offer.km),
        "fuel": offer.fuel,
        "seller_type": offer.seller,
        "transmission": offer.transmission,
        "owner": offer.owner,
    }
