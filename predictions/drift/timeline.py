"""The drift of each column over time, step by step, from rollups only."""

from __future__ import annotations

import bisect
import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from predictions.rollups import reading
from predictions.rollups.hours import HOUR, ceiling, floor
from training.models import ModelVersion
from vigia_ml.declaration import MonitoringConfig
from vigia_ml.drift import histograms, statistics
from vigia_ml.drift.bin_counts import Counted, Whole
from vigia_ml.reference_profile import ColumnProfile, Profile

STEPS: Final = tuple(HOUR * hours for hours in (1, 2, 3, 6, 12, 24, 48, 168, 336, 720))
MOST_STEPS: Final = 40
"""Maximum number of steps; more cells would be narrower than their text."""
LONGEST: Final = STEPS[-1] * MOST_STEPS
CHANCE: Final = 0.01
"""Significance level: a step whose index chance exceeds with a higher probability is quiet at any index."""


@dataclass(frozen=True, slots=True)
class Window:
    """A window of whole hours, half open, in steps of one length.

    Steps are counted from 1970, so that days begin at midnight (UTC); the first and the last may be shorter.
    """

    since: dt.datetime
    until: dt.datetime
    step: dt.timedelta

    @property
    def aligned(self) -> dt.datetime:
        """The beginning of the first full step, or the end of the window without one."""
        return min(ceiling(self.since, self.step), self.until)

    @property
    def steps(self) -> list[dt.datetime]:
        """The beginnings of the steps."""
        full = -((self.aligned - self.until) // self.step)
        first = [self.since] if self.since < self.aligned else []
        return first + [self.aligned + self.step * at for at in range(full)]

    def place(self, moment: dt.datetime) -> float:
        """Returns the position of a time in the window, in steps from its beginning."""
        edges = [*self.steps, self.until]
        at = max(0, bisect.bisect_right(edges, moment) - 1)
        if at >= len(edges) - 1:
            return float(len(edges) - 1)
        return at + (moment - edges[at]) / (edges[at + 1] - edges[at])

    @property
    def parts(self) -> list[tuple[dt.datetime, dt.datetime]]:
        """The parts of the window whose steps are counted from the part's beginning."""
        cut = [(self.since, self.aligned), (self.aligned, self.until)]
        return [(since, until) for since, until in cut if since < until]


def latest(length: dt.timedelta, now: dt.datetime) -> Window:
    """Returns the newest window of a length, up to the end of the step of `now`."""
    step = step_for(length)
    until = ceiling(now, step)
    return Window(until - length, until, step)


def between(since: dt.datetime, until: dt.datetime) -> Window:
    """Returns the window between two times, widened to whole hours.

    Raises
    ------
    ValueError : the window is empty or longer than `LONGEST`.
    """
    if since >= until:
        raise ValueError("The beginning must be before the end.")
    since = floor(since)
    if until - since > LONGEST:  # checked before rounding up: an hour after the year 9999 does not exist
        raise ValueError(f"The window is too long; at most {LONGEST.days:,} days are accepted.")
    until = ceiling(until)
    return Window(since, until, step_for(until - since))


def step_for(length: dt.timedelta) -> dt.timedelta:
    """Returns the shortest step that divides a window into at most `MOST_STEPS`."""
    return next((step for step in STEPS if length <= step * MOST_STEPS), STEPS[-1])


@dataclass(frozen=True, slots=True)
class Cell:
    """One column in one step.

    psi : adjusted PSI. tone : ``few`` (too few rows), ``quiet``, ``slight``, ``large`` (from the declared
        threshold on) or ``huge`` (from 2.5 times the threshold on).
    """

    at: dt.datetime
    rows: int
    psi: float | None
    tone: str


@dataclass(frozen=True, slots=True)
class Line:
    """One column over time.

    overall : all steps together. cells : one per step, None without answers. counted : counts of the whole
    window, None without rows.
    """

    column: ColumnProfile
    overall: Cell | None
    cells: tuple[Cell | None, ...]
    counted: Counted | None

    @property
    def name(self) -> str:
        """The column's name for people."""
        return histograms.said(self.column.name)

    @property
    def bars(self) -> list[histograms.Bar]:
        """The two histograms: the version's reference and the window."""
        column = self.column
        counts = self.counted.counts.tolist() if self.counted else [0] * column.bins.size
        bins = {"apart": column.apart, "reference": column.counts, "window": counts}
        return histograms.bars(column.bins.kind, bins | {"labels": column.bins.labels})


@dataclass(frozen=True, slots=True)
class Timeline:
    """The drift of all columns of a version.

    lines : columns with the largest drift first, then the answers. rows : number of answered rows.
    counted : name in `Profile.by_name` -> counts of the whole window; an absent name has no rows.
    """

    lines: tuple[Line, ...]
    rows: int
    counted: Mapping[str, Counted]


def read(version: ModelVersion, window: Window, watch: MonitoringConfig) -> Timeline:
    """Returns the drift of every column against the version's reference profile."""
    profile: Profile = version.reference.profile
    by_step = {
        at: counted
        for since, until in window.parts
        for at, counted in reading.by_step(version, since, until, window.step)
    }

    def line(column: ColumnProfile) -> Line:
        steps = {at: counts[column.name] for at, counts in by_step.items() if column.name in counts}
        return _line(column, steps, window, watch)

    inputs = sorted(map(line, profile.columns), key=_psi, reverse=True)
    lines = (*inputs, *map(line, profile.answers))
    counted = {name: total for name in profile.by_name if (total := _total(by_step, name)) is not None}
    return Timeline(lines, max((each.counted.rows for each in lines if each.counted), default=0), counted)


def _total(by_step: Mapping[dt.datetime, Mapping[str, Counted]], name: str) -> Counted | None:
    parts = [counts[name] for counts in by_step.values() if name in counts]
    if not parts:
        return None
    return Counted(
        np.sum([each.counts for each in parts], axis=0), np.sum([each.totals for each in parts], axis=0)
    )


def _psi(line: Line) -> float:
    psi = line.overall.psi if line.overall else None
    return -math.inf if psi is None else psi


def _line(
    column: ColumnProfile, by_step: Mapping[dt.datetime, Counted], window: Window, watch: MonitoringConfig
) -> Line:
    reference = np.asarray(column.counts, dtype=np.int64)
    cells = tuple(_cell(at, reference, by_step[at], watch) if at in by_step else None for at in window.steps)
    parts = list(by_step.values())
    totals = (
        np.sum([each.counts for each in parts], axis=0),
        np.sum([each.totals for each in parts], axis=0),
    )
    counted = Counted(*totals) if parts else None
    overall = _cell(window.since, reference, counted, watch) if counted else None
    return Line(column, overall, cells, counted)


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
