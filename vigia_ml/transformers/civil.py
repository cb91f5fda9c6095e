"""Parts of dates as arithmetic on doubles, written once for numpy and for the compiled graph. No pandas here.

Days become year, month and day by Howard Hinnant's `civil_from_days` (chrono-Compatible Low-Level Date
Algorithms, 2013), for the proleptic Gregorian calendar of Python, pandas and ISO 8601. All steps but
`age_days` compute with whole numbers below 2^53, so that every quotient is floored correctly: both engines
give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

DAY: Final = 86_400.0
PARTS: Final = (
    "year", "quarter", "month", "day", "day_of_year", "weekday", "is_weekend", "hour", "minute", "second",
    "age_days", "month_sin", "month_cos", "weekday_sin", "weekday_cos", "hour_sin", "hour_cos",
)  # fmt: skip
CYCLES: Final = {"month": 12, "weekday": 7, "hour": 24}
"""Length of each cycle; its first value (0 or 1) is that of the part."""
LARGEST: Final = {
    "year": 9999.0, "quarter": 4.0, "month": 12.0, "day": 31.0, "day_of_year": 366.0, "weekday": 6.0,
    "is_weekend": 1.0, "hour": 23.0, "minute": 59.0, "second": 59.0,
}  # fmt: skip
"""Largest value of each part, without `age_days` and the cycles."""

_UNIX: Final = 719_468.0  # days from 0000-03-01, where Hinnant's eras begin, to 1970-01-01
_FIRST_YEAR: Final = 719_162.0  # days from 0001-01-01 to 1970-01-01


class Civil:
    """The parts of moments; each is computed at its first use.

    Parameters
    ----------
    seconds : numbers with the operators ``+ - * /``; seconds since 1970, NaN for a missing moment.
    floor : rounds down. is_least : (number, least) -> 1.0 where number >= least, else 0.0; 0.0 for NaN.
    missing : (answer, number) -> the answer, NaN where the number is.
    """

    def __init__(
        self,
        seconds: Any,
        floor: Callable[[Any], Any],
        is_least: Callable[[Any, float], Any],
        missing: Callable[[Any, Any], Any],
    ) -> None:
        self._seconds, self._floor, self._is_least, self._missing = seconds, floor, is_least, missing

    def _over(self, number: Any, divisor: float) -> Any:
        return self._floor(number / divisor)

    @cached_property
    def _whole(self) -> Any:
        return self._floor(self._seconds)

    @cached_property
    def _days(self) -> Any:
        return self._over(self._whole, DAY)

    @cached_property
    def _of_day(self) -> Any:
        return self._whole - self._days * DAY

    @cached_property
    def _era(self) -> tuple[Any, Any, Any]:
        """Years since 0000-03-01, the day of that year (0: 1 March) and its month (0: March)."""
        shifted = self._days + _UNIX
        era = self._over(shifted, 146_097.0)
        day = shifted - era * 146_097.0
        leap = self._over(day, 36_524.0) - self._over(day, 1_460.0) - self._over(day, 146_096.0)
        year = self._over(day + leap, 365.0)
        of_year = day - (year * 365.0 + self._over(year, 4.0) - self._over(year, 100.0))
        return year + era * 400.0, of_year, self._over(of_year * 5.0 + 2.0, 153.0)

    @cached_property
    def month(self) -> Any:
        march = self._era[2]
        return march + 3.0 - self._is_least(march, 10.0) * 12.0

    @cached_property
    def year(self) -> Any:
        year, _, march = self._era
        return year + self._is_least(march, 10.0)

    @cached_property
    def day(self) -> Any:
        _, of_year, march = self._era
        return of_year - self._over(march * 153.0 + 2.0, 5.0) + 1.0

    @cached_property
    def quarter(self) -> Any:
        return self._over(self.month + 2.0, 3.0)

    @cached_property
    def day_of_year(self) -> Any:
        before = self.year - 1.0
        leaps = self._over(before, 4.0) - self._over(before, 100.0) + self._over(before, 400.0)
        return self._days - (before * 365.0 + leaps - _FIRST_YEAR) + 1.0

    @cached_property
    def weekday(self) -> Any:
        """0 for Monday; 1970 began on a Thursday."""
        shifted = self._days + 3.0
        return shifted - self._over(shifted, 7.0) * 7.0

    @cached_property
    def is_weekend(self) -> Any:
        return self._missing(self._is_least(self.weekday, 5.0), self._seconds)

    @cached_property
    def hour(self) -> Any:
        return self._over(self._of_day, 3_600.0)

    @cached_property
    def minute(self) -> Any:
        return self._over(self._of_day, 60.0) - self.hour * 60.0

    @cached_property
    def second(self) -> Any:
        return self._of_day - self._over(self._of_day, 60.0) * 60.0

    def age_days(self, reference: float) -> Any:
        """Days from the reference, in seconds since 1970, to the moment; negative before it."""
        return (self._seconds - reference) / DAY


def cycle(part: str) -> tuple[str, list[float], list[float]]:
    """Returns (the part of a cycle's name, its values, their sine or cosine): ``month_sin`` of 1 to 12."""
    base, _, wave = part.rpartition("_")
    length, function = CYCLES[base], math.sin if wave == "sin" else math.cos
    first = 1 if base == "month" else 0
    values = [float(first + at) for at in range(length)]
    return base, values, [function(2.0 * math.pi * at / length) for at in range(length)]
