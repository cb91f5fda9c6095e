"""Used cars with their technical data as text. In the form of the third CarDekho file.

The offers are made up by the same rules as those of `tools.samples.cars` (see there); each is then
described further, by rules as invented as the prices:

- Power and torque grow with the engine: a diesel pulls more than a petrol engine of the same size, a
  premium make gets more out of it, and engines before 2012 give a little less.
- Mileage falls with the engine's size and with an automatic gearbox, and rises with the year;
  diesel goes further. Cars on gas are measured in km/kg, all others in kmpl.
- The numbers carry their units as text: "21.4 kmpl", "1248 CC", "77.4 bhp". Torque comes in many
  notations, in Nm or in kgm, with one engine speed or a range of them, as different people typed them.
- About one car in forty lacks all five technical columns; a few have a power of " bhp" without a number.
- About one row in twenty is an exact repeat of an earlier one.

The committed file is `python -m tools.samples` with its default seed (`tools.samples.SEED`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from tools.samples import car_models, cars
from tools.samples.draws import Draws, Row, with_repeats

COLUMNS: Final = (*cars.COLUMNS, "mileage", "engine", "max_power", "torque", "seats")
ROWS: Final = 1_500
REPEATED: Final = 0.05

TECHNICAL: Final = ("mileage", "engine", "max_power", "torque", "seats")
UNDESCRIBED: Final = 0.025
POWER_WITHOUT_NUMBER: Final = 0.002
NM_IN_ONE_KGM: Final = 9.80665

# How the torque is written down, and how often.
NOTATIONS: Final = {
    "{nm}Nm@ {rpm}rpm": 0.62,
    "{nm}nm@ {rpm}rpm": 0.08,
    "{nm} Nm at {rpm}rpm": 0.06,
    "{nm}Nm at {rpm} rpm": 0.03,
    "{kgm}@ {grouped}(kgm@ rpm)": 0.10,
    "{kgm} kgm at {rpm}rpm": 0.04,
    "{kgm} kgm at {grouped} rpm": 0.02,
    "{kgm}kgm@ {rpm}rpm": 0.02,
    "{kgm} KGM at {rpm} RPM": 0.01,
    "{nm}Nm": 0.01,
    "{nm}({kgm})@ {first}": 0.01,
}


def rows(count: int, rng: np.random.Generator) -> Iterator[Row]:
    """`count` offers, a few of them repeated."""
    draws = Draws(rng)
    return with_repeats(_offers(draws), count, REPEATED, draws)


def _offers(draws: Draws) -> Iterator[Row]:
    while True:
        offer = car_models.offer(draws, electric=False)
        yield cars.described(offer) | _technical(draws, offer)


def _technical(draws: Draws, offer: car_models.Offer) -> Row:
    if draws.chance(UNDESCRIBED):
        return dict.fromkeys(TECHNICAL, "")
    diesel = offer.fuel == "Diesel"
    size = offer.model.diesel if diesel else offer.model.petrol
    power, torque = _strength(offer, size)
    return {
        "mileage": _mileage(draws, offer, size),
        "engine": f"{size} CC",
        "max_power": " bhp" if draws.chance(POWER_WITHOUT_NUMBER) else f"{_short(power)} bhp",
        "torque": _torque(draws, torque, diesel=diesel),
        "seats": str(offer.model.seats),
    }


def _strength(offer: car_models.Offer, size: int) -> tuple[float, float]:
    """Power in bhp and torque in Nm: the same for all cars of one model, fuel and generation."""
    premium = offer.model.brand in car_models.PREMIUM_BRANDS
    a_cc, pull = (0.061, 0.160) if offer.fuel == "Diesel" else (0.071, 0.093)
    if premium:
        a_cc, pull = (0.094, 0.197) if offer.fuel == "Diesel" else (0.101, 0.171)
    # A dearer car of the same displacement has the stronger tune; a taxi-like one the weaker.
    tune = 0.82 + 0.18 * min(offer.model.lakh / (size / 160.0), 1.4)
    generation = 0.95 if offer.year < 2012 else 1.0
    on_gas = 0.86 if offer.fuel in ("CNG", "LPG") else 1.0
    factor = size * tune * generation * on_gas
    return a_cc * factor, pull * factor


def _mileage(draws: Draws, offer: car_models.Offer, size: int) -> str:
    distance = 26.5 - 0.0054 * size + (4.6 if offer.fuel == "Diesel" else 0.0)
    distance += 0.22 * (offer.year - 2012) - (0.9 if offer.transmission == "Automatic" else 0.0)
    distance -= 1.2 if offer.model.seats > 5 else 0.0
    distance = max(distance + draws.normal(0.0, 0.5), 9.0)
    if offer.fuel in ("CNG", "LPG"):
        return f"{_short(distance * 1.18)} km/kg"
    return f"{distance:.2f} kmpl" if draws.chance(0.4) else f"{distance:.1f} kmpl"


def _torque(draws: Draws, newton_metres: float, *, diesel: bool) -> str:
    first = 250 * draws.whole(6, 8) if diesel else 500 * draws.whole(6, 9)
    last = first + 250 * draws.whole(2, 5)
    spread, about = draws.chance(0.55 if diesel else 0.08), draws.chance(0.0 if diesel else 0.1)
    speeds = f"{first}-{last}" if spread else f"{first}+/-500" if about else str(first)
    grouped = f"{first:,}-{last:,}" if spread else f"{first:,}"
    return draws.pick(NOTATIONS).format(
        nm=_short(newton_metres) if draws.chance(0.4) else f"{newton_metres:.0f}",
        kgm=f"{newton_metres / NM_IN_ONE_KGM:.1f}",
        rpm=speeds,
        grouped=grouped,
        first=first,
    )


def _short(number: float) -> str:
    """One decimal, or none where it would be a zero: 74, 88.5."""
    return f"{number:.1f}".removesuffix(".0")
