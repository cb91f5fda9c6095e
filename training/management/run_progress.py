"""Execution of a training run by a command, with its progress and result on the terminal."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from django.core.management.base import CommandError

from core.background import run_periodically
from training.models import ModelVersion, TrainingRun
from training.reports import side_by_side
from training.runs import requests as run_requests

WATCH_SECONDS: Final = 0.3
GATE_NOT_PASSED: Final = 2
"""Exit code; code 1 stands for every other error."""

Say = Callable[[str], None]


def add_activation_arguments(parser: ArgumentParser) -> None:
    """Adds ``--activate`` and ``--reason``; `activation_reason` reads them."""
    parser.add_argument(
        "--activate",
        action="store_true",
        help="activate the version if it passes its gate, whatever the policy",
    )
    parser.add_argument(
        "--reason", default="", metavar="TEXT", help="reason of the activation, for the audit table"
    )


def activation_reason(options: Mapping[str, Any], default: str) -> str:
    """Returns the reason of the requested activation; empty without ``--activate``."""
    if options["reason"] and not options["activate"]:
        raise CommandError("--reason needs --activate")
    return (options["reason"] or default) if options["activate"] else ""


def execute_and_present(run: TrainingRun, say: Say) -> None:
    """Executes a queued run in this process, or waits for a worker that claimed it first; prints each stage
    and the result.

    Raises
    ------
    CommandError : the run failed, or its version did not pass its gate.
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
    """Prints each stage that the run's row reports."""
    printed: list[tuple[str, int]] = []

    def watch() -> None:
        stage = TrainingRun.objects.filter(pk=run_id).values_list("stage", "percent").first()
        if stage is not None and stage not in printed[-1:]:
            printed.append(stage)
            say(f"  {stage[1]:3d} %  {stage[0]}")

    return run_periodically(watch, every=WATCH_SECONDS, name=f"watch-{run_id}")


def _present(version: ModelVersion, say: Say) -> None:
    say(f"version {version.number} of {version.registered_model.name}")
    for line in metrics_table(version):
        say(f"  {line}")
    for check in version.gate["checks"]:
        verdict = "WARN  " if check.get("warning") else "ok    " if check["passed"] else "FAILED"
        say(f"  {verdict}  {check['message']}")
    for note in version.run.notes:
        if note["code"] not in {check["name"] for check in version.gate["checks"]}:
            say(f"  {'WARN  ' if note['level'] == 'warning' else 'note  '}  {note['message']}")
    is_active = version.status == ModelVersion.Status.ACTIVE
    say(f"version {version.number} is {'active' if is_active else 'not active'}")
    if not version.gate["passed"]:
        result = "the policy activated it nevertheless" if is_active else "it was not activated"
        raise CommandError(
            f"version {version.number} did not pass its gate: {result}", returncode=GATE_NOT_PASSED
        )
    if not is_active:
        say("Activate it in the admin, or with --activate.")


def metrics_table(version: ModelVersion) -> list[str]:
    """Returns one line per metric: the version's, the baseline's and those of the version that was active."""
    columns = {f"version {version.number}": version.metrics, "baseline": version.baseline}
    if version.gate.get("active_metrics"):
        columns[f"version {version.gate['compared_with']}"] = version.gate["active_metrics"]
    declared = side_by_side.declaration(version.registered_model)
    names = [name for name in (declared.metrics if declared else version.metrics) if name in version.metrics]
    width = max(10, *(len(name) + 1 for name in names))
    lines = [f"{'metric':<{width}}" + "".join(f"{title:>14}" for title in columns)]
    for name in names:
        cells = (f"{values[name]:,.4g}" if name in values else "" for values in columns.values())
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>14}" for cell in cells))
    return lines
