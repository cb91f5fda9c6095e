"""The car models of both car samples: real makes and models, with approximate figures.

Names, years of sale and engine sizes are common knowledge and only plausible. The prices of new cars and all
values derived from them are invented for the samples and say nothing about a market.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from tools.samples.draws import Draws

TODAY: Final = 2020  # the year of the generated offers
LAKH: Final = 100_000


@dataclass(frozen=True, slots=True)
class Model:
    """One car model.

    first, last : first and last year of manufacture of the offered cars.
    share : weight among the offers.
    lakh : price of a new car with the middle trim and a petrol engine, in 100,000 rupees.
    petrol, diesel : engine size in cubic centimetres; 0 for no such engine.
    """

    brand: str
    name: str
    first: int
    last: int
    share: float
    lakh: float
    petrol: int
    diesel: int
    seats: int = 5


@dataclass(frozen=True, slots=True)
class Offer:
    """One offered used car with its price; each sample writes it in its own columns."""

    model: Model
    name: str
    year: int
    km: int
    fuel: str
    seller: str
    transmission: str
    owner: str
    price: int


# fmt: off
MODELS: Final = (
    Model("Maruti", "800", 1998, 2012, 2.0, 2.6, 796, 0, 4),
    Model("Maruti", "Alto", 2001, 2020, 7.0, 3.6, 796, 0),
    Model("Maruti", "Zen", 1999, 2012, 1.5, 3.7, 998, 0),
    Model("Maruti", "Omni", 1998, 2018, 1.2, 3.0, 796, 0, 8),
    Model("Maruti", "Eeco", 2010, 2020, 1.2, 4.2, 1196, 0, 7),
    Model("Maruti", "Wagon R", 2001, 2020, 5.0, 5.1, 998, 0),
    Model("Maruti", "Celerio", 2014, 2020, 1.5, 5.2, 998, 0),
    Model("Maruti", "Ritz", 2009, 2016, 1.5, 5.6, 1197, 1248),
    Model("Maruti", "Swift", 2006, 2020, 7.0, 6.6, 1197, 1248),
    Model("Maruti", "Swift Dzire", 2008, 2020, 5.0, 7.3, 1197, 1248),
    Model("Maruti", "Baleno", 2015, 2020, 2.0, 7.4, 1197, 1248),
    Model("Maruti", "Ertiga", 2012, 2020, 2.2, 8.8, 1373, 1248, 7),
    Model("Maruti", "Vitara Brezza", 2016, 2020, 1.6, 8.9, 1462, 1248),
    Model("Maruti", "Ciaz", 2014, 2020, 1.3, 9.4, 1373, 1248),
    Model("Hyundai", "Santro", 1999, 2020, 2.4, 4.3, 1086, 0),
    Model("Hyundai", "EON", 2011, 2019, 2.6, 4.0, 814, 0),
    Model("Hyundai", "i10", 2007, 2017, 2.8, 5.3, 1086, 0),
    Model("Hyundai", "Grand i10", 2013, 2020, 3.0, 6.2, 1197, 1186),
    Model("Hyundai", "i20", 2008, 2020, 4.2, 7.3, 1197, 1396),
    Model("Hyundai", "Xcent", 2014, 2020, 1.3, 6.9, 1197, 1186),
    Model("Hyundai", "Verna", 2006, 2020, 3.0, 10.2, 1591, 1582),
    Model("Hyundai", "Creta", 2015, 2020, 1.9, 12.8, 1591, 1582),
    Model("Mahindra", "Bolero", 2003, 2020, 2.4, 8.2, 0, 2523, 7),
    Model("Mahindra", "Scorpio", 2004, 2020, 2.6, 12.0, 0, 2179, 8),
    Model("Mahindra", "Xylo", 2009, 2018, 0.9, 9.2, 0, 2489, 8),
    Model("Mahindra", "XUV500", 2011, 2020, 2.2, 15.4, 0, 2179, 7),
    Model("Mahindra", "KUV 100", 2016, 2020, 0.9, 6.2, 1198, 1198),
    Model("Tata", "Nano", 2009, 2018, 0.9, 2.4, 624, 0, 4),
    Model("Tata", "Indica", 2000, 2016, 2.6, 4.6, 1193, 1405),
    Model("Tata", "Indigo", 2003, 2016, 2.0, 5.4, 1193, 1405),
    Model("Tata", "Tiago", 2016, 2020, 1.6, 5.7, 1199, 1047),
    Model("Tata", "Nexon", 2017, 2020, 1.1, 9.4, 1198, 1497),
    Model("Tata", "Safari", 2002, 2018, 1.3, 12.4, 0, 2179, 7),
    Model("Honda", "Brio", 2011, 2018, 0.9, 5.5, 1198, 0),
    Model("Honda", "Amaze", 2013, 2020, 1.9, 7.4, 1198, 1498),
    Model("Honda", "Jazz", 2009, 2020, 1.2, 8.0, 1198, 1498),
    Model("Honda", "City", 2003, 2020, 3.2, 10.8, 1497, 1498),
    Model("Honda", "CR-V", 2004, 2020, 0.3, 20.0, 1997, 0),
    Model("Toyota", "Etios", 2010, 2020, 1.7, 7.2, 1496, 1364),
    Model("Toyota", "Corolla Altis", 2004, 2020, 1.0, 16.5, 1798, 1364),
    Model("Toyota", "Innova", 2005, 2020, 3.0, 16.0, 1998, 2494, 7),
    Model("Toyota", "Fortuner", 2009, 2020, 1.0, 23.0, 2694, 2982, 7),
    Model("Ford", "Ikon", 2000, 2010, 0.6, 5.6, 1299, 1399),
    Model("Ford", "Figo", 2010, 2020, 2.4, 6.3, 1196, 1498),
    Model("Ford", "EcoSport", 2013, 2020, 1.8, 9.9, 1497, 1498),
    Model("Ford", "Endeavour", 2006, 2020, 0.5, 21.0, 0, 2198, 7),
    Model("Chevrolet", "Spark", 2007, 2016, 1.1, 4.1, 995, 0),
    Model("Chevrolet", "Beat", 2010, 2017, 1.8, 5.0, 1199, 936),
    Model("Chevrolet", "Cruze", 2010, 2017, 0.6, 15.0, 0, 1998),
    Model("Renault", "KWID", 2015, 2020, 2.0, 4.1, 799, 0),
    Model("Renault", "Duster", 2012, 2020, 1.8, 11.4, 1498, 1461),
    Model("Volkswagen", "Polo", 2010, 2020, 1.9, 7.4, 1198, 1498),
    Model("Volkswagen", "Vento", 2010, 2020, 1.4, 10.2, 1598, 1498),
    Model("Skoda", "Rapid", 2011, 2020, 1.2, 10.0, 1598, 1498),
    Model("Skoda", "Octavia", 2004, 2020, 0.7, 19.5, 1798, 1968),
    Model("Nissan", "Micra", 2010, 2018, 0.9, 6.2, 1198, 1461),
    Model("Nissan", "Terrano", 2013, 2020, 0.7, 11.0, 1598, 1461),
    Model("Datsun", "GO", 2014, 2020, 1.0, 4.3, 1198, 0),
    Model("Fiat", "Punto", 2009, 2018, 0.8, 6.4, 1172, 1248),
    Model("Jeep", "Compass", 2017, 2020, 0.6, 19.8, 1368, 1956),
    # Premium cars are at most seven years old: a few very old ones would cause most of the error of a model
    # trained on so few rows.
    Model("Audi", "A4", 2013, 2020, 1.9, 33.0, 1798, 1968),
    Model("Audi", "Q3", 2013, 2020, 1.3, 31.0, 1395, 1968),
    Model("BMW", "3 Series", 2013, 2020, 1.9, 34.0, 1998, 1995),
    Model("BMW", "X1", 2013, 2020, 1.3, 31.0, 1997, 1995),
    Model("Mercedes-Benz", "C-Class", 2013, 2020, 1.8, 36.0, 1991, 2143),
    Model("Mercedes-Benz", "E-Class", 2013, 2020, 1.0, 40.0, 1991, 2143),
)
# fmt: on

# Trims from basic to rich, for petrol (gas, electric) and for diesel if the badge differs.
PETROL_TRIMS: Final = {
    "Maruti": ("LXI", "VXI", "ZXI"),
    "Hyundai": ("Era", "Magna", "Sportz", "Asta"),
    "Mahindra": ("K2", "K4", "K8"),
    "Tata": ("XE", "XM", "XZ"),
    "Honda": ("E", "S", "V", "VX"),
    "Toyota": ("G", "GX", "VX"),
    "Ford": ("Ambiente", "Trend", "Titanium"),
    "Chevrolet": ("PS", "LS", "LT"),
    "Renault": ("RXE", "RXL", "RXZ"),
    "Volkswagen": ("Trendline", "Comfortline", "Highline"),
    "Skoda": ("Active", "Ambition", "Elegance"),
    "Nissan": ("XE", "XL", "XV"),
    "Datsun": ("A", "T"),
    "Fiat": ("Active", "Dynamic", "Emotion"),
    "Jeep": ("Sport", "Longitude", "Limited"),
}
DIESEL_TRIMS: Final = {
    "Maruti": ("LDI", "VDI", "ZDI"),
    "Mahindra": ("S4", "S6", "S10"),
    "Hyundai": ("CRDi Era", "CRDi Magna", "CRDi Sportz", "CRDi Asta"),
    "Honda": ("i-DTEC E", "i-DTEC S", "i-DTEC V", "i-DTEC VX"),
    "Ford": ("TDCi Ambiente", "TDCi Trend", "TDCi Titanium"),
}
PREMIUM_TRIMS: Final = ("Sport", "Premium", "Luxury")
PREMIUM_BRANDS: Final = frozenset({"Audi", "BMW", "Mercedes-Benz"})
KEEPS_ITS_PRICE: Final = frozenset({"Maruti", "Toyota", "Hyundai", "Honda"})

ELECTRIC: Final = Model("Mahindra", "e2o", 2013, 2018, 0.2, 6.4, 0, 0, 4)
WITH_GAS: Final = frozenset({"Alto", "Wagon R", "Eeco", "Omni", "Ertiga", "Santro", "i10", "Spark", "Indica"})

SELLERS: Final = {"Individual": 0.76, "Dealer": 0.21, "Trustmark Dealer": 0.03}
SELLER_FACTOR: Final = {"Individual": 0.97, "Dealer": 1.06, "Trustmark Dealer": 1.12}
OWNERS: Final = ("First Owner", "Second Owner", "Third Owner", "Fourth & Above Owner")
OWNER_FACTOR: Final = {
    "First Owner": 1.0,
    "Second Owner": 0.92,
    "Third Owner": 0.85,
    "Fourth & Above Owner": 0.79,
    "Test Drive Car": 1.04,
}
FUEL_FACTOR: Final = {"Petrol": 1.0, "Diesel": 1.13, "CNG": 1.04, "LPG": 0.95, "Electric": 1.0}
KM_A_YEAR: Final = {"Petrol": 8_300, "Diesel": 12_400, "CNG": 11_000, "LPG": 10_000, "Electric": 5_500}


def offer(draws: Draws, *, electric: bool) -> Offer:
    """Returns a generated offer; `electric` allows an electric car."""
    weights = {model: model.share for model in MODELS} | ({ELECTRIC: ELECTRIC.share} if electric else {})
    model = draws.pick(weights)
    year = _year(draws, model)
    age = TODAY - year
    fuel = _fuel(draws, model)
    premium = model.brand in PREMIUM_BRANDS
    automatic = fuel == "Electric" or draws.chance(_automatic_share(model, year))
    name, richness = _badge(draws, model, fuel, automatic)
    owner = _owner(draws, age)
    usual = KM_A_YEAR[fuel] * (age + 0.6)
    km = int(min(max(usual * math.exp(draws.normal(-0.10, 0.42)), 900.0), 420_000.0))
    seller = draws.pick(SELLERS if age < 12 else {"Individual": 0.95, "Dealer": 0.05})
    loss = 0.096 if model.brand in KEEPS_ITS_PRICE else 0.118 if premium else 0.110
    value = model.lakh * LAKH * (0.90 + 0.20 * richness)
    value *= FUEL_FACTOR[fuel] * (1.10 if automatic and not premium else 1.0)
    value *= 0.90 * math.exp(-loss * age) * math.exp(-0.16 * (km / usual - 1.0))
    value *= OWNER_FACTOR[owner] * SELLER_FACTOR[seller] * math.exp(draws.normal(0.0, 0.12))
    price = max(int(round(value, -3)), 25_000)
    transmission = "Automatic" if automatic else "Manual"
    return Offer(model, name, year, km, fuel, seller, transmission, owner, price)


def _year(draws: Draws, model: Model) -> int:
    """Draws a year of manufacture: most offered cars are three to ten years old."""
    weights = {
        year: math.exp(-(((TODAY - year - 5.0) / 5.5) ** 2) / 2) + 0.03
        for year in range(model.first, model.last + 1)
    }
    return draws.pick(weights)


def _fuel(draws: Draws, model: Model) -> str:
    if model is ELECTRIC:
        return "Electric"
    if model.name in WITH_GAS and draws.chance(0.10):
        return draws.pick({"CNG": 0.65, "LPG": 0.35})
    if not model.diesel:
        return "Petrol"
    if not model.petrol:
        return "Diesel"
    # Buyers of expensive cars drive more and choose diesel more often.
    return "Diesel" if draws.chance(min(0.46 + 0.02 * model.lakh, 0.80)) else "Petrol"


def _automatic_share(model: Model, year: int) -> float:
    if model.brand in PREMIUM_BRANDS:
        return 0.97
    if model.lakh < 4.0:
        return 0.01
    return min(0.02 + 0.009 * model.lakh, 0.25) * (1.5 if year >= 2015 else 0.7)


def _badge(draws: Draws, model: Model, fuel: str, automatic: bool) -> tuple[str, float]:
    """Returns the name as in an advertisement, and the richness of the trim (0 to 1)."""
    plain = PETROL_TRIMS.get(model.brand, PREMIUM_TRIMS)
    trims = DIESEL_TRIMS.get(model.brand, plain) if fuel == "Diesel" else plain
    place = draws.whole(0, len(trims) - 1)
    words = [model.brand, model.name]
    if fuel in ("CNG", "LPG"):
        words.append(fuel)
    words.append(trims[place])
    if automatic and fuel != "Electric" and model.brand not in PREMIUM_BRANDS:
        words.append("AT")
    return " ".join(words), place / (len(trims) - 1)


def _owner(draws: Draws, age: int) -> str:
    """Draws the number of owners: some cars change owners every year; nearly new cars may be test cars."""
    if age <= 1 and draws.chance(0.05):
        return "Test Drive Car"
    hands = 0
    for _ in range(3):
        hands += draws.chance(min(0.035 * age, 0.55) * (0.75**hands))
    return OWNERS[hands]
