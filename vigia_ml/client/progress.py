"""Progress of long calls: a bar of rich on the terminal, or a function of the caller."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

Report = Callable[[int, int], None]
"""Takes (number of units newly done, number of units in all)."""
Progress = bool | Callable[[int, int], None]
"""True: a progress bar on standard error. A function: takes (units done, units in all)."""


def nobody(more: int, total: int) -> None:
    """Reports to nobody."""


@contextmanager
def reporting(progress: Progress, title: str) -> Iterator[Report]:
    """Yields the function that flows report to; it may be called by several threads."""
    if progress is False:
        yield nobody
        return
    done, lock = 0, Lock()
    if callable(progress):
        tell = progress

        def report(more: int, total: int) -> None:
            nonlocal done
            with lock:
                done += more
                tell(done, total)

        yield report
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def advance(more: int, total: int) -> None:
            bar.update(task, total=total, advance=more)

        yield advance
