"""The window of an export. Web processes import it, so no pyarrow here."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

from core.uuid7 import EPOCH
from predictions.rollups import counting
from predictions.rollups.hours import floor

DAY: Final = dt.timedelta(days=1)
MILLISECOND: Final = dt.timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Window:
    """since <= time of the prediction < until, in UTC."""

    since: dt.datetime
    until: dt.datetime

    @property
    def is_whole_day(self) -> bool:
        return self.since == floor(self.since, DAY) and self.until == self.since + DAY

    def covers(self, other: Window) -> bool:
        return self.since <= other.since and other.until <= self.until


def latest_end() -> dt.datetime:
    """Returns the time up to which the log is complete: a later row may not be committed yet."""
    return floor(counting.database_now() - counting.lag(), MILLISECOND)


def complete_window(since: dt.datetime | None, until: dt.datetime | None) -> Window:
    """Returns the window, cut at `latest_end`, which is also the default of `until`."""
    end = latest_end()
    return Window(since or EPOCH, end if until is None else min(until, end))
