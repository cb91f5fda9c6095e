"""A training run executed where somebody waits for it: what commands show of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from django.core.management.base import CommandError

from core.background import run_periodically
from training.models import ModelVersion, TrainingRun
from training.reports import side_by_side
from training.runs import requests as run_requests

WATCH_SECONDS: Final = 0.3
GATE_NOT_PASSED: Final = 2
"""Exit code; 1 is for everything that was refused or failed."""

Say = Callable[[str], None]


def execute_and_present(run: TrainingRun, say: Say) -> None:
    """Executes a queued run in this process, or waits for the worker that was faster; says each stage, and
    what became of it.

    Raises
    ------
    CommandError : the run failed, or its version does not pass its gate.
    """
    with _watched(run.pk, say):
        if not run_requests.execute(run.pk):
            while not run.is_finished:
                time.sleep(WATCH_SECONDS)
                run.refresh_from_db()
    run.refresh_from_db()
    if run.status != TrainingRun.Status.SUCCEEDED:
        raise CommandError(f"run {run.pk} failed: {run.error}")
    _present(run.version, say)


def _watched(run_id: int, say: Say) -> AbstractContextManager[None]:
    """Says each stage of the run as the row reports it."""
    said: list[tuple[str, int]] = []

    def watch() -> None:
        now = TrainingRun.objects.filter(pk=run_id).values_list("stage", "percent").first()
        if now is not None and now not in said[-1:]:
            said.append(now)
            say(f"  {now[1]:3d} %  {now[0]}")

    return run_periodically(watch, every=WATCH_SECONDS, name=f"watch-{run_id}")


def _present(made: ModelVersion, say: Say) -> None:
    say(f"version {made.number} of {made.registered_model.name}")
    for line in metrics_table(made):
        say(f"  {line}")
    for check in made.gate["checks"]:
        verdict = "WARN  " if check.get("warning") else "ok    " if check["passed"] else "FAILED"
        say(f"  {verdict}  {check['message']}")
    for note in made.run.notes:
        if note["code"] not in {check["name"] for check in made.gate["checks"]}:
            say(f"  {'WARN  ' if note['level'] == 'warning' else 'note  '}  {note['message']}")
    is_active = made.status == ModelVersion.Status.ACTIVE
    say(f"version {made.number} is {'active' if is_active else 'not active'}")
    if not made.gate["passed"]:
        did = "it was activated by policy all the same" if is_active else "it was not activated"
        raise CommandError(f"version {made.number} does not pass its gate: {did}", returncode=GATE_NOT_PASSED)
    if not is_active:
        say("Activate it in the admin, or with --activate.")


def metrics_table(made: ModelVersion) -> list[str]:
    """Metrics of a version beside the baseline's and those of the version that was active, a line each."""
    columns = {f"version {made.number}": made.metrics, "baseline": made.baseline}
    if made.gate.get("active_metrics"):
        columns[f"version {made.gate['compared_with']}"] = made.gate["active_metrics"]
    declared = side_by_side.declaration(made.registered_model)
    names = [name for name in (declared.metrics if declared else made.metrics) if name in made.metrics]
    width = max(10, *(len(name) + 1 for name in names))
    lines = [f"{'metric':<{width}}" + "".join(f"{title:>14}" for title in columns)]
    for name in names:
        cells = (f"{values[name]:,.4g}" if name in values else "" for values in columns.values())
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>14}" for cell in cells))
    return lines
