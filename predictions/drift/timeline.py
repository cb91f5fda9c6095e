"""A version watched over a window of time: how each column moved, step by step. Read from rollups alone."""

from __future__ import annotations

import bisect
import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from core.uuid7 import EPOCH
from predictions.rollups import reading
from training.models import ModelVersion
from vigia_ml.declaration import MonitoringConfig
from vigia_ml.drift import histograms, statistics
from vigia_ml.drift.bin_counts import Counted, Whole
from vigia_ml.reference_profile import ColumnProfile, Profile

HOUR: Final = dt.timedelta(hours=1)
STEPS: Final = tuple(HOUR * hours for hours in (1, 2, 3, 6, 12, 24, 48, 168, 336, 720))
MOST_STEPS: Final = 40
"""More would be narrower than what is written into them."""
LONGEST: Final = STEPS[-1] * MOST_STEPS
CHANCE: Final = 0.01
"""A step whose index chance exceeds more often than this is shown as quiet, however large the index."""


@dataclass(frozen=True, slots=True)
class Window:
    """Whole hours, half open, in steps of one length that begin where whole ones since 1970 do: days at
    midnight (UTC). The first and the last may be shorter."""

    since: dt.datetime
    until: dt.datetime
    step: dt.timedelta

    @property
    def aligned(self) -> dt.datetime:
        """Where the first whole step begins; the end of the window, if none does."""
        return min(_ceiling(self.since, self.step), self.until)

    @property
    def steps(self) -> list[dt.datetime]:
        """The beginnings of the steps."""
        whole = -((self.aligned - self.until) // self.step)
        first = [self.since] if self.since < self.aligned else []
        return first + [self.aligned + self.step * at for at in range(whole)]

    def place(self, moment: dt.datetime) -> float:
        """Where a moment of the window lies, in steps from its beginning."""
        edges = [*self.steps, self.until]
        at = max(0, bisect.bisect_right(edges, moment) - 1)
        if at >= len(edges) - 1:
            return float(len(edges) - 1)
        return at + (moment - edges[at]) / (edges[at + 1] - edges[at])

    @property
    def parts(self) -> list[tuple[dt.datetime, dt.datetime]]:
        """The window as what is read step by step from its own beginning."""
        cut = [(self.since, self.aligned), (self.aligned, self.until)]
        return [(since, until) for since, until in cut if since < until]


def latest(length: dt.timedelta, now: dt.datetime) -> Window:
    """The newest window of a length, up to the end of the step that `now` is in."""
    step = step_for(length)
    until = _ceiling(now, step)
    return Window(until - length, until, step)


def between(since: dt.datetime, until: dt.datetime) -> Window:
    """The window of two moments, widened to whole hours.

    Raises
    ------
    ValueError : it is empty, or longer than `LONGEST`.
    """
    if since >= until:
        raise ValueError("The beginning must be before the end.")
    since = _floor(since, HOUR)
    if until - since > LONGEST:  # asked before it is widened: the hour after the year 9999 is none
        raise ValueError(f"A window has at most {LONGEST.days:,} days.")
    until = _ceiling(until, HOUR)
    return Window(since, until, step_for(until - since))


def step_for(length: dt.timedelta) -> dt.timedelta:
    """The shortest step that divides a window into no more than `MOST_STEPS`."""
    return next((step for step in STEPS if length <= step * MOST_STEPS), STEPS[-1])


def _floor(moment: dt.datetime, step: dt.timedelta) -> dt.datetime:
    return EPOCH + (moment - EPOCH) // step * step


def _ceiling(moment: dt.datetime, step: dt.timedelta) -> dt.datetime:
    return EPOCH - (EPOCH - moment) // step * step


@dataclass(frozen=True, slots=True)
class Cell:
    """One column in one step.

    psi : adjusted. tone : ``few`` rows, ``quiet``, ``slight``, ``large`` (the watch's threshold is reached)
        or ``huge`` (two and a half times of it).
    """

    at: dt.datetime
    rows: int
    psi: float | None
    tone: str


@dataclass(frozen=True, slots=True)
class Line:
    """One column over time. whole : all steps together. counted : of all of them, None without rows.

    cells : one a step, None where nothing was answered.
    """

    column: ColumnProfile
    whole: Cell | None
    cells: tuple[Cell | None, ...]
    counted: Counted | None

    @property
    def name(self) -> str:
        """For people."""
        return histograms.said(self.column.name)

    @property
    def bars(self) -> list[histograms.Bar]:
        """The two histograms: the version's reference and the window."""
        counts = self.counted.counts.tolist() if self.counted else [0] * self.column.bins.size
        column = self.column
        bins = {
            "labels": column.bins.labels,
            "apart": column.apart,
            "reference": column.counts,
            "window": counts,
        }
        return histograms.bars(column.bins.kind, bins)


@dataclass(frozen=True, slots=True)
class Moved:
    """lines : of the columns, those that moved most first; then of the answers. rows : answered."""

    lines: tuple[Line, ...]
    rows: int


def moved(version: ModelVersion, window: Window, watch: MonitoringConfig) -> Moved:
    """How every column moved away from the version's reference profile."""
    profile: Profile = version.reference.profile
    by_step = {
        at: counted
        for since, until in window.parts
        for at, counted in reading.by_step(version, since, until, window.step)
    }

    def line(column: ColumnProfile) -> Line:
        found = {at: counts[column.name] for at, counts in by_step.items() if column.name in counts}
        return _line(column, found, window, watch)

    inputs = sorted(map(line, profile.columns), key=_how_far, reverse=True)
    lines = (*inputs, *map(line, profile.answers))
    return Moved(lines, max((each.counted.rows for each in lines if each.counted), default=0))


def _how_far(line: Line) -> tuple[bool, float]:
    known = line.whole is not None and line.whole.psi is not None
    return known, line.whole.psi if line.whole and line.whole.psi is not None else 0.0


def _line(
    column: ColumnProfile, by_step: Mapping[dt.datetime, Counted], window: Window, watch: MonitoringConfig
) -> Line:
    reference = np.asarray(column.counts, dtype=np.int64)
    cells = tuple(_cell(at, reference, by_step[at], watch) if at in by_step else None for at in window.steps)
    counted = _together(by_step.values())
    whole = _cell(window.since, reference, counted, watch) if counted else None
    return Line(column, whole, cells, counted)


def _together(parts: Iterable[Counted]) -> Counted | None:
    known = list(parts)
    if not known:
        return None
    return Counted(
        np.sum([each.counts for each in known], axis=0), np.sum([each.totals for each in known], axis=0)
    )


def _cell(at: dt.datetime, reference: Whole, counted: Counted, watch: MonitoringConfig) -> Cell:
    rows = counted.rows
    if rows < watch.minimum_rows or not reference.sum():
        return Cell(at, rows, None, "few")
    index = statistics.psi(reference, counted.counts)
    chance = statistics.expected_psi(reference, counted.counts)
    scale = 1 / float(reference.sum()) + 1 / rows
    freedom = round(chance / scale)
    likely = statistics.chi_square_survival(index / scale, freedom) if freedom else 1.0
    return Cell(at, rows, index - chance, _tone(index - chance, likely, watch))


def _tone(psi: float, likely: float, watch: MonitoringConfig) -> str:
    if likely >= CHANCE or psi < watch.psi / 2:
        return "quiet"
    return "slight" if psi < watch.psi else "large" if psi < 2.5 * watch.psi else "huge"
