"""This process's numbers, in plain Python; somebody else takes them away every second.

A request for predictions costs some 200 µs of processor time, and Prometheus' client several µs for each
number it is told. So `answered` adds to a few numbers under one lock, and the client is told by a thread what
was added up meanwhile (`web.metrics.exporter`).
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

BOUNDS: Final = (
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0,
)  # fmt: skip
"""Seconds: upper bounds (inclusive) of the latency histogram; one bucket more is for what took longer.

The table `AnswerTime` stores places in this tuple: bounds may be added at its end, never changed.
"""
BUCKETS: Final = len(BOUNDS) + 1
_NONE: Final = (0,) * BUCKETS


class Answering(Protocol):
    """What is needed of the version that answered; see `training.serving.engine_cache.Served`."""

    @property
    def model_id(self) -> int: ...
    @property
    def model_name(self) -> str: ...
    @property
    def version_id(self) -> int: ...
    @property
    def number(self) -> int: ...


class Answers:
    """Requests for predictions that one version answered on one route.

    Attributes
    ----------
    buckets : requests by how long they took (`BUCKETS`,). seconds : of all of them together.
    rows : instances. classes : instances by class, as JSON; empty for a regression.
    """

    __slots__ = ("buckets", "classes", "rows", "seconds", "served")

    def __init__(self, served: Answering) -> None:
        self.served = served
        self.buckets = list(_NONE)
        self.seconds = 0.0
        self.rows = 0
        self.classes: dict[bytes, int] = {}


class Times:
    """How long things took.

    Attributes
    ----------
    buckets : how many, by `BOUNDS` (`BUCKETS`,). seconds : all of them together.
    """

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = list(_NONE)
        self.seconds = 0.0


@dataclass(frozen=True, slots=True)
class Taken:
    """What was counted since the last time.

    answers : by (route, version id); the route is empty where the request is among `counts` already.
    counts : by (metric, values of its labels). times : the same, of histograms.
    """

    answers: dict[tuple[str, int], Answers]
    counts: dict[tuple[str, tuple[str, ...]], float]
    times: dict[tuple[str, tuple[str, ...]], Times]


_lock = threading.Lock()
_answers: dict[tuple[str, int], Answers] = {}
_counts: dict[tuple[str, tuple[str, ...]], float] = {}
_times: dict[tuple[str, tuple[str, ...]], Times] = {}


def answered(
    route: str, served: Answering, values: Sequence[bytes], seconds: float, *, classes: bool
) -> None:
    """Counts one request whose predictions were committed and go out.

    Parameters
    ----------
    route : "" where the HTTP request is counted elsewhere.
    values : the predictions (rows,), as JSON. classes : whether they are classes of the target.
    """
    rows = len(values)
    several = Counter(values) if classes and rows > 1 else None
    at = bisect_left(BOUNDS, seconds)
    key = (route, served.version_id)
    with _lock:
        found = _answers.get(key)
        if found is None:
            found = _answers[key] = Answers(served)
        found.buckets[at] += 1
        found.seconds += seconds
        found.rows += rows
        if several is not None:
            for value, times in several.items():
                found.classes[value] = found.classes.get(value, 0) + times
        elif classes:
            value = values[0]
            found.classes[value] = found.classes.get(value, 0) + 1


def count(name: str, *labels: str, by: float = 1.0) -> None:
    """Adds to a counter of the table. Labels come from our own names, never from what a client sent."""
    key = (name, labels)
    with _lock:
        _counts[key] = _counts.get(key, 0.0) + by


def observe(name: str, labels: tuple[str, ...], seconds: float) -> None:
    """Adds to a histogram of the table. Labels as with `count`."""
    key, at = (name, labels), bisect_left(BOUNDS, seconds)
    with _lock:
        found = _times.get(key)
        if found is None:
            found = _times[key] = Times()
        found.buckets[at] += 1
        found.seconds += seconds


def take() -> Taken:
    """All that was counted since the last call."""
    global _answers, _counts, _times
    with _lock:
        taken = Taken(_answers, _counts, _times)
        _answers, _counts, _times = {}, {}, {}
    return taken


def _begin_anew() -> None:
    """In a child made by fork: the parent's numbers are the parent's, and its lock may be held for ever."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    take()


os.register_at_fork(after_in_child=_begin_anew)
