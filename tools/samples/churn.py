"""Customers of a made-up telephone company: who leaves? In the raw form of the Telco churn file.

Nobody in it exists. The relations, in words:

- Customers with a longer contract have been there longer; a few joined so recently (tenure 0) that
  nothing has been charged yet: their TotalCharges is a blank, as in the published file.
- Without internet every internet service reads "No internet service"; without a telephone there is
  one line fewer to speak of ("No phone service"). Those who stay long book more of the extras.
- MonthlyCharges is the sum of a tariff per service plus a personal deviation. It always ends in nine
  cents: the published charges come in steps of five, so no row made here can equal one of those.
- TotalCharges is about tenure times MonthlyCharges, because tariffs moved along the way.
- Leaving follows a logistic rule. Up: month-to-month contract, fiber, electronic check, paperless bill,
  being older, streaming. Down: tenure (steeply in the first months), one and above all two years'
  contract, technical support, online security, dependents, no internet at all. Whoever leaves does so by
  a draw with that probability, so even the true rule would rank only so well (AUC about 0.85).

The committed file is `python -m tools.samples` with its default seed (`tools.samples.SEED`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from tools.samples.draws import Draws, Row

COLUMNS: Final = (
    "customerID",
    "gender",
    "SeniorCitizen",
    "Partner",
    "Dependents",
    "tenure",
    "PhoneService",
    "MultipleLines",
    "InternetService",
    "OnlineSecurity",
    "OnlineBackup",
    "DeviceProtection",
    "TechSupport",
    "StreamingTV",
    "StreamingMovies",
    "Contract",
    "PaperlessBilling",
    "PaymentMethod",
    "MonthlyCharges",
    "TotalCharges",
    "Churn",
)
ROWS: Final = 2_000

LONGEST_TENURE: Final = 72  # months since the company began
LETTERS: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ"

# Extra: (share among newcomers, added share at the longest tenure, tariff a month).
EXTRAS: Final = {
    "OnlineSecurity": (0.22, 0.32, 5.0),
    "OnlineBackup": (0.28, 0.34, 5.0),
    "DeviceProtection": (0.26, 0.38, 5.0),
    "TechSupport": (0.22, 0.33, 5.0),
    "StreamingTV": (0.36, 0.26, 10.0),
    "StreamingMovies": (0.36, 0.27, 10.0),
}
CONTRACTS: Final = {"Month-to-month": 0.55, "One year": 0.21, "Two year": 0.24}
INTERNET: Final = {
    "Month-to-month": {"DSL": 0.32, "Fiber optic": 0.54, "No": 0.14},
    "One year": {"DSL": 0.39, "Fiber optic": 0.36, "No": 0.25},
    "Two year": {"DSL": 0.37, "Fiber optic": 0.25, "No": 0.38},
}
INTERNET_TARIFF: Final = {"DSL": 25.0, "Fiber optic": 50.0, "No": 0.0}

# The rule of leaving, on the logit scale.
LEAVES: Final = {
    "Month-to-month": 0.45,
    "One year": -0.25,
    "Two year": -1.10,
    "DSL": 0.0,
    "Fiber optic": 0.80,
    "No": -0.75,
    "Electronic check": 0.45,
    "Mailed check": 0.0,
    "Bank transfer (automatic)": -0.10,
    "Credit card (automatic)": -0.15,
}
LEAVES_BASE: Final = -1.33


def rows(count: int, rng: np.random.Generator) -> Iterator[Row]:
    """`count` customers, one after the other."""
    draws, taken = Draws(rng), set[str]()
    for _ in range(count):
        yield _customer(draws, taken)


def _customer(draws: Draws, taken: set[str]) -> Row:
    row = {"customerID": _identity(draws, taken), "gender": draws.pick({"Female": 1.0, "Male": 1.0})}
    senior, partner = draws.chance(0.16), draws.chance(0.48)
    dependents = draws.chance((0.50 if partner else 0.10) * (0.25 if senior else 1.0))
    row["SeniorCitizen"] = "1" if senior else "0"
    row["Partner"], row["Dependents"] = _yes(partner), _yes(dependents)
    contract = draws.pick(CONTRACTS)
    tenure = _tenure(draws, contract)
    row["tenure"] = str(tenure)
    tariff = _services(draws, row, contract, tenure)
    row["Contract"] = contract
    row["PaperlessBilling"] = _yes(draws.chance(0.30 if row["InternetService"] == "No" else 0.68))
    row["PaymentMethod"] = _payment(draws, row["InternetService"], contract)
    monthly = round(max(tariff + draws.normal(0.0, 0.6), 18.0), 1) + 0.09
    row["MonthlyCharges"] = f"{monthly:.2f}"
    row["TotalCharges"] = _total(draws, tenure, monthly)
    row["Churn"] = _yes(draws.chance(_probability_of_leaving(row, tenure)))
    return {name: row[name] for name in COLUMNS}


def _identity(draws: Draws, taken: set[str]) -> str:
    """Four digits, a hyphen, five letters; never given twice."""
    while True:
        letters = "".join(LETTERS[draws.whole(0, len(LETTERS) - 1)] for _ in range(5))
        identity = f"{draws.whole(0, 9999):04d}-{letters}"
        if identity not in taken:
            taken.add(identity)
            return identity


def _tenure(draws: Draws, contract: str) -> int:
    """Months with the company: most month-to-month customers are new, most of the others are not."""
    if draws.chance(0.012 if contract == "Two year" else 0.001):
        return 0
    shape = {"Month-to-month": 2.3, "One year": 0.85, "Two year": 0.42}[contract]
    return 1 + int((LONGEST_TENURE - 1e-9) * draws.uniform() ** shape)


def _services(draws: Draws, row: Row, contract: str, tenure: int) -> float:
    """Fills in what the customer has booked and gives what it costs a month."""
    internet = draws.pick(INTERNET[contract])
    # The company sells no DSL without asking about a telephone, and no customer has neither.
    phone = internet != "DSL" or draws.chance(0.72)
    lines = draws.chance(0.22 + 0.008 * tenure + (0.12 if internet == "Fiber optic" else 0.0))
    row["InternetService"], row["PhoneService"] = internet, _yes(phone)
    row["MultipleLines"] = _yes(lines) if phone else "No phone service"
    tariff = INTERNET_TARIFF[internet] + (20.0 if phone else 0.0) + (5.0 if phone and lines else 0.0)
    committed = {"Month-to-month": -0.07, "One year": 0.04, "Two year": 0.14}[contract]
    for name, (share, added, price) in EXTRAS.items():
        if internet == "No":
            row[name] = "No internet service"
            continue
        booked = draws.chance(share + added * tenure / LONGEST_TENURE + committed)
        row[name] = _yes(booked)
        tariff += price if booked else 0.0
    return tariff


def _payment(draws: Draws, internet: str, contract: str) -> str:
    """Fiber customers pay by electronic check, phone-only ones by post, settled ones automatically."""
    automatic = {"Month-to-month": 0.30, "One year": 0.56, "Two year": 0.68}[contract]
    if draws.chance(automatic):
        return draws.pick({"Bank transfer (automatic)": 1.0, "Credit card (automatic)": 1.0})
    electronic = {"DSL": 0.52, "Fiber optic": 0.86, "No": 0.16}[internet]
    return "Electronic check" if draws.chance(electronic) else "Mailed check"


def _total(draws: Draws, tenure: int, monthly: float) -> str:
    """What was charged so far; a blank, not a zero, for who has not had a bill yet."""
    if tenure == 0:
        return " "
    if tenure == 1:
        return f"{monthly:.2f}"
    return f"{tenure * monthly * min(max(draws.normal(1.0, 0.025), 0.9), 1.1):.2f}"


def _probability_of_leaving(row: Row, tenure: int) -> float:
    score = LEAVES_BASE + sum(LEAVES[row[name]] for name in ("Contract", "InternetService", "PaymentMethod"))
    score += 0.9 * math.exp(-tenure / 5.0) - 0.024 * tenure
    score += 0.30 * (row["SeniorCitizen"] == "1") + 0.35 * (row["PaperlessBilling"] == "Yes")
    score += 0.20 * (row["MultipleLines"] == "Yes") - 0.25 * (row["Dependents"] == "Yes")
    score += 0.20 * ((row["StreamingTV"] == "Yes") + (row["StreamingMovies"] == "Yes"))
    score -= 0.40 * ((row["TechSupport"] == "Yes") + (row["OnlineSecurity"] == "Yes"))
    return 1.0 / (1.0 + math.exp(-score))


def _yes(fact: bool) -> str:
    return "Yes" if fact else "No"
