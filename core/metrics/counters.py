"""Counters of this process, in plain Python, flushed once a second.

A request for predictions costs some 200 µs of processor time, and Prometheus' client several µs for each
update. So `answered` adds to a few numbers under one lock, and a thread passes the sums to the client
(`web.metrics.exporter`).
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
"""Seconds: upper bounds (inclusive) of the latency histogram; one more bucket counts longer times.

The table `AnswerTime` stores positions in this tuple: bounds may be added at its end, never changed.
"""
BUCKETS: Final = len(BOUNDS) + 1
_NONE: Final = (0,) * BUCKETS


class Answering(Protocol):
    """The attributes of a served version that metrics need; see `training.serving.engine_cache.Served`."""

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
    buckets : requests by duration (`BUCKETS`,). seconds : sum of their durations.
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
    """A histogram of durations.

    Attributes
    ----------
    buckets : number of observations by `BOUNDS` (`BUCKETS`,). seconds : their sum.
    """

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = list(_NONE)
        self.seconds = 0.0


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts since the last flush.

    answers : by (route, version id); the route is empty if `counts` includes the request already.
    counts : by (metric, values of its labels). times : histograms by the same key.
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
    """Counts one request whose predictions are committed and about to be sent.

    Parameters
    ----------
    route : "" if the HTTP request is counted elsewhere.
    values : the predictions (rows,), as JSON. classes : whether they are classes of the target.
    """
    rows = len(values)
    several = Counter(values) if classes and rows > 1 else None
    at = bisect_left(BOUNDS, seconds)
    key = (route, served.version_id)
    with _lock:
        answers = _answers.get(key)
        if answers is None:
            answers = _answers[key] = Answers(served)
        answers.buckets[at] += 1
        answers.seconds += seconds
        answers.rows += rows
        if several is not None:
            for value, times in several.items():
                answers.classes[value] = answers.classes.get(value, 0) + times
        elif classes:
            value = values[0]
            answers.classes[value] = answers.classes.get(value, 0) + 1


def count(name: str, *labels: str, by: float = 1.0) -> None:
    """Adds to a counter of the table. Labels are names of ours, never text that a client sent."""
    key = (name, labels)
    with _lock:
        _counts[key] = _counts.get(key, 0.0) + by


def observe(name: str, labels: tuple[str, ...], seconds: float) -> None:
    """Adds to a histogram of the table. The rule for labels is that of `count`."""
    key, at = (name, labels), bisect_left(BOUNDS, seconds)
    with _lock:
        times = _times.get(key)
        if times is None:
            times = _times[key] = Times()
        times.buckets[at] += 1
        times.seconds += seconds


def take() -> Counts:
    """Returns the counts since the last call and resets them."""
    global _answers, _counts, _times
    with _lock:
        taken = Counts(_answers, _counts, _times)
        _answers, _counts, _times = {}, {}, {}
    return taken


def _reset_after_fork() -> None:
    """Drops the parent's counts and its lock, which may be held for ever, in a forked child."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    take()


os.register_at_fork(after_in_child=_reset_after_fork)
