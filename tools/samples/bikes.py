"""Bicycles hired by the hour over two years, in the form of the UCI repository's hourly file.

Hours follow each other from the first of January 2011, so the committed file is the first quarter of two
years, and more rows are what comes later: another season, another year, more riders. The relations, in words:

- Commuters ride at 8 and 17 to 18 on working days, others in the afternoon at weekends.
- Warmth draws riders out until it is hot; rain and wind keep them at home, humidity a little.
- From one year to the next there are three fifths more riders.
- Weather keeps: today is much like yesterday, and nights are colder.
- On top comes a multiplicative deviation of about 20 %.
"""

from __future__ import annotations

import datetime as dt
import math
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

import numpy as np

from tools.samples.draws import Draws, Row

COLUMNS: Final = (
    "instant", "dteday", "season", "yr", "mnth", "hr", "holiday", "weekday", "workingday", "weathersit",
    "temp", "atemp", "hum", "windspeed", "casual", "registered", "cnt",
)  # fmt: skip
ROWS: Final = 4_344
"""A quarter of two years of hours."""
TWO_YEARS: Final = 17_376
GROWTH: Final = 0.6  # from one year to the next
HOLIDAYS: Final = frozenset(
    {(1, 1), (1, 17), (2, 21), (4, 15), (5, 30), (7, 4), (9, 5), (10, 10), (11, 11), (11, 24), (12, 26)}
)
SEASONS: Final = ((3, 21), (6, 21), (9, 23), (12, 21))  # their first days, from spring on
# Riders of each hour, as a share of the busiest.
WORKDAY: Final = (
    0.10, 0.05, 0.03, 0.02, 0.02, 0.06, 0.22, 0.62, 1.00, 0.48, 0.30, 0.36,
    0.44, 0.43, 0.40, 0.45, 0.64, 0.98, 0.92, 0.66, 0.47, 0.36, 0.27, 0.18,
)  # fmt: skip
WEEKEND: Final = (
    0.24, 0.19, 0.14, 0.07, 0.03, 0.03, 0.05, 0.09, 0.20, 0.34, 0.50, 0.62,
    0.72, 0.75, 0.75, 0.74, 0.70, 0.62, 0.52, 0.42, 0.33, 0.28, 0.24, 0.19,
)  # fmt: skip


def rows(count: int, rng: np.random.Generator) -> Iterator[Row]:
    """`count` hours, one after the other."""
    draws = Draws(rng)
    start = dt.datetime(2011, 1, 1)
    weather = _Weather(draws)
    for instant in range(count):
        hour = start + dt.timedelta(hours=instant)
        yield _hour(instant + 1, hour, weather.next(hour), draws)


class _Weather:
    """It changes slowly: a day's deviation is most of the day before's."""

    def __init__(self, draws: Draws) -> None:
        self._draws = draws
        self._warmer, self._wet, self._wind = 0.0, 0.0, 0.0

    def next(self, hour: dt.datetime) -> dict[str, float]:
        """Temperature, humidity and wind as the file scales them, and how bad it is."""
        draws = self._draws
        if hour.hour == 0:
            self._warmer = 0.75 * self._warmer + draws.normal(0.0, 0.055)
            self._wet = 0.5 * self._wet + draws.normal(0.0, 0.8)
            self._wind = 0.4 * self._wind + draws.normal(0.0, 0.06)
        day = hour.timetuple().tm_yday
        season = -math.cos(2 * math.pi * (day - 20) / 365.25)
        daily = -math.cos(2 * math.pi * (hour.hour - 4) / 24)
        temp = 0.49 + 0.25 * season + 0.07 * daily + self._warmer + draws.normal(0.0, 0.01)
        hum = 0.62 + 0.12 * self._wet - 0.1 * daily + draws.normal(0.0, 0.05)
        wind = 0.19 + self._wind + 0.03 * daily + draws.normal(0.0, 0.06)
        bad = self._wet + draws.normal(0.0, 0.5)
        return {
            "temp": _within(temp, 0.02, 1.0),
            "hum": _within(hum, 0.15, 1.0),
            "windspeed": _within(wind, 0.0, 0.85),
            "weathersit": 3.0 if bad > 1.5 else 2.0 if bad > 0.6 else 1.0,
        }


def _hour(instant: int, hour: dt.datetime, weather: dict[str, float], draws: Draws) -> Row:
    holiday = (hour.month, hour.day) in HOLIDAYS
    weekday = (hour.weekday() + 1) % 7  # from Sunday
    working = not holiday and 1 <= weekday <= 5
    temp, hum, wind = weather["temp"], weather["hum"], weather["windspeed"]
    feels = _within(temp * 0.94 + 0.035 - 0.05 * wind + draws.normal(0.0, 0.008), 0.0, 1.0)
    pleasant = 0.25 + 1.5 * max(temp - 0.08, 0.0) ** 0.8 - 2.2 * max(temp - 0.78, 0.0)
    dry = (
        (1.0, 0.88, 0.5)[int(weather["weathersit"]) - 1] * (1 - 0.35 * max(hum - 0.6, 0.0)) * (1 - 0.3 * wind)
    )
    grown = 1 + GROWTH * (instant / 24 / 365.25)
    riders = 340 * (WORKDAY if working else WEEKEND)[hour.hour] * pleasant * dry * grown
    count = max(1, round(riders * math.exp(draws.normal(0.0, 0.2))))
    share = _within((0.13 if working else 0.32) + draws.normal(0.0, 0.04), 0.0, 1.0)
    casual = round(count * share)
    return {
        "instant": str(instant),
        "dteday": f"{hour:%Y-%m-%d}",
        "season": str(bisect_right(SEASONS, (hour.month, hour.day)) % 4 + 1),
        "yr": str(hour.year - 2011),
        "mnth": str(hour.month),
        "hr": str(hour.hour),
        "holiday": str(int(holiday)),
        "weekday": str(weekday),
        "workingday": str(int(working)),
        "weathersit": f"{weather['weathersit']:.0f}",
        "temp": f"{temp:.2f}",
        "atemp": f"{feels:.4f}",
        "hum": f"{hum:.2f}",
        "windspeed": f"{wind:.4f}",
        "casual": str(casual),
        "registered": str(count - casual),
        "cnt": str(count),
    }


def _within(number: float, low: float, high: float) -> float:
    return min(max(number, low), high)
