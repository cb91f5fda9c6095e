"""The rows that are sent, and that the peers' models are fitted on: those of Vigía's sample files.

Every service that accepts JSON objects gets the same bodies: the columns' names, and values in the API's
format.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "training" / "samples"
CHURN_NUMBERS = ("tenure", "monthlycharges", "totalcharges")
HOUSE_NUMBERS = (
    *("lat", "lng", "surface", "bathrooms", "rooms", "garden", "age", "net_surface", "lift", "garage"),
)
HOUSE_CONDITIONS = ("A reformar", "En buen estado", "Reformado", "A estrenar")
SEED = 20
ONE_ROW_BODIES = 200
LARGE_BODIES = 20
LARGE_ROWS = 1000

Row = dict[str, Any]


def churn() -> tuple[list[Row], list[bool]]:
    """Returns the customers, and whether each of them left."""
    rows, left = [], []
    for raw in _raw("churn"):
        row: Row = {name.lower(): value.strip().lower().replace(" ", "_") for name, value in raw.items()}
        del row["customerid"]
        left.append(row.pop("churn") == "yes")
        row["seniorcitizen"] = row["seniorcitizen"] == "1"
        row["tenure"] = int(row["tenure"])
        row["monthlycharges"] = float(row["monthlycharges"])
        row["totalcharges"] = float(row["totalcharges"]) if row["totalcharges"] else None
        rows.append(row)
    return rows, left


def raw_churn() -> list[dict[str, str]]:
    """Returns the customers as in the sample file, without the target."""
    return [{name: value for name, value in raw.items() if name.lower() != "churn"} for raw in _raw("churn")]


def houses() -> tuple[list[Row], list[float]]:
    """Returns the dwellings and their prices."""
    rows, prices = [], []
    for raw in _raw("houses"):
        row: Row = {name: _number(raw[name]) for name in HOUSE_NUMBERS}
        row["bathrooms"] = _integer(row["bathrooms"])
        row["rooms"] = _integer(row["rooms"])
        row["condition"] = raw["condition"].strip() or None
        rows.append(row)
        prices.append(float(raw["price"]))
    return rows, prices


def _raw(name: str) -> list[dict[str, str]]:
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _number(cell: str) -> float | bool | None:
    text = cell.strip().lower()
    return {"yes": True, "no": False, "": None}[text] if text in {"yes", "no", ""} else float(text)


def _integer(value: float | None) -> int | None:
    return None if value is None else int(value)


def one_row(rows: Sequence[Row]) -> list[Row]:
    """Draws `ONE_ROW_BODIES` different rows, for requests of one row."""
    return random.Random(SEED).sample(list(rows), ONE_ROW_BODIES)  # noqa: S311


def many_rows(rows: Sequence[Row]) -> list[list[Row]]:
    """Draws `LARGE_BODIES` different lists of a thousand rows, for requests of one list."""
    draw = random.Random(SEED)  # noqa: S311
    return [draw.sample(list(rows), LARGE_ROWS) for _ in range(LARGE_BODIES)]


def write(path: Path, bodies: Sequence[object]) -> Path:
    """Writes one body per line, the format of `wrk.lua`."""
    path.write_text("".join(json.dumps(body) + "\n" for body in bodies), encoding="utf-8")
    return path
