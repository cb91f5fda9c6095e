"""Trains first versions of models that have none, from sample data or an operator's files.

Several are trained in parallel, each in a process forked from one that has imported the modules for training.
A start continues the run that an interrupted start left instead of requesting another.
"""

from __future__ import annotations

import importlib
import io
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, connections, transaction
from django.db.models import F

from recommender.models import Movie
from training import providers
from training.jobs import leases
from training.models import RegisteredModel, TrainingRun
from training.reports import side_by_side as comparison
from training.runs import requests as run_requests
from training.runs import uploads
from vigia_ml import libraries
from vigia_ml.schema import InvalidRows

SAMPLES = Path(settings.BASE_DIR) / "training" / "samples"
MOVIES = Path(settings.BASE_DIR) / "recommender" / "samples"
ENDING_SECONDS: Final = 3.0
"""How long processes may take to end after SIGTERM; this process' own supervisor waits little longer."""
POLL_SECONDS: Final = 0.5
REPORT_SECONDS: Final = 10.0

Say = Callable[[str], None]
INTERRUPTED: Final[dict[str, Any]] = {
    "status": leases.Status.QUEUED,
    "lease_owner": None,
    "lease_until": None,
    "stage": "interrupted; queued again",
    "percent": 0,
}
Unfinished = (TrainingRun.Status.QUEUED, TrainingRun.Status.RUNNING)


def requeue_interrupted() -> int:
    """Requeues every running job without waiting for its lease; returns the number of jobs.

    Only for a start that knows that no other process uses this database.
    """
    return sum(
        kind._default_manager.filter(status=leases.Status.RUNNING).update(**INTERRUPTED)
        for kind in leases.kinds()
    )


def run_parallel(tasks: Sequence[Callable[[], object]]) -> None:
    """Runs the tasks, as many at once as there are processors, each in its own process.

    Runs them one after the other with a single processor or task, or within a transaction, whose rows another
    process would not see.

    Raises
    ------
    CommandError : a process died, or its task raised an error (which it has printed).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if cores == 1 or len(tasks) < 2 or connection.in_atomic_block:
        for task in tasks:
            task()
        return
    connections.close_all()  # processes must not share a connection
    context = multiprocessing.get_context("fork")
    processes: list[ForkProcess] = []
    try:
        for task in tasks:
            running = [process for process in processes if process.is_alive()]
            if len(running) == cores:
                wait([process.sentinel for process in running])
            process = context.Process(target=_run_task, args=[task])
            process.start()
            processes.append(process)
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.terminate()
        until = time.monotonic() + ENDING_SECONDS
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
            process.kill()
    failed = sum(process.exitcode != 0 for process in processes)
    if failed:
        raise CommandError(
            f"{failed} of {len(processes)} processes of the start failed; see above, then start again"
        )


def _run_task(task: Callable[[], object]) -> None:
    try:
        task()
    except (KeyboardInterrupt, SystemExit):  # stopped by a signal: no error to print
        sys.exit(1)
    finally:
        connections.close_all()


def stop_when_told() -> None:
    """Makes SIGTERM end the program as Ctrl-C does, so that running jobs are requeued."""
    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))


def import_training_modules() -> None:
    """Imports the modules for training before a fork, which spares each process seconds."""
    libraries.import_all()
    for module in ("training.runs.execution", "recommender.training_run"):
        importlib.import_module(module)


class FirstVersion:
    def __init__(self, row: RegisteredModel, say: Say, complain: Say) -> None:
        self.row, self.say, self.complain = row, say, complain

    def train(self) -> None:
        """Trains the version and prints the result; an error does not stop the other models."""
        started = time.monotonic()
        run = self._unfinished_run() or self._request()
        if run is not None:
            self._finish(run)
            self._report(run, time.monotonic() - started)

    def _unfinished_run(self) -> TrainingRun | None:
        """Returns the run of an interrupted start, or one requested since."""
        waiting = TrainingRun.objects.filter(registered_model=self.row, status__in=Unfinished)
        return waiting.order_by("id").first()

    def _source(self, samples: Path, ending: str) -> Path:
        own = settings.VAR_DIR / "first-data" / f"{self.row.name}.csv"
        return own if own.exists() else samples / f"{self.row.name}.{ending}"

    def _request(self) -> TrainingRun | None:
        if providers.find(self.row.name) is not None:
            return self._request_index()
        path = self._source(SAMPLES, "csv")
        if not path.exists():
            how = f"manage.py load_dataset {self.row.name} FILE --train --activate"
            self.say(f"  {self.row.name}: no data yet; load data with: {how}")
            return None
        try:
            with path.open("rb") as stream, transaction.atomic():
                dataset = uploads.from_csv(self.row, stream, by=None, source=path.name)
                reason = f"first version, trained from {path.name}"
                return run_requests.request(
                    self.row, dataset, mode=TrainingRun.Mode.REPLACE, by=None, activation_reason=reason
                )
        except InvalidRows as error:
            self._report_failure(f"{path}: {error.message}")
        return None

    def _request_index(self) -> TrainingRun | None:
        """Requests the first index; an empty catalogue gets the shipped movies first."""
        path = self._source(MOVIES, "jsonl")
        if Movie.objects.exists():
            path = Path("the catalogue")
        else:
            try:
                with transaction.atomic():  # movies and interactions, or neither
                    call_command("load_movies", str(path), verbosity=0, stdout=io.StringIO())
                    if path.parent == MOVIES:
                        interactions = str(MOVIES / "interactions.csv")
                        call_command("load_interactions", interactions, verbosity=0, stdout=io.StringIO())
            except CommandError as error:
                self._report_failure(f"{path}: {error}")
                return None
        reason = f"first version, built from {path.name}"
        return run_requests.request_again(self.row, by=None, activation_reason=reason)

    def _report(self, run: TrainingRun, seconds: float) -> None:
        run.refresh_from_db()
        if run.status != TrainingRun.Status.SUCCEEDED:
            self._report_failure(run.error or str(run.status))
            return
        version = run.version
        assert version is not None
        metric = comparison.primary_metric(self.row)
        assert metric is not None
        state = "active" if version.activations.exists() else "NOT active: it did not pass its gate"
        value = version.metrics.get(metric)
        shown = "–" if value is None else f"{value:.3f}"
        self.say(f"  {self.row.name}: version {version.number} is {state}; {metric} {shown}; {seconds:.1f} s")

    def _finish(self, run: TrainingRun) -> None:
        """Executes the run, or waits for its process and takes over when the lease expires."""
        report = time.monotonic() + POLL_SECONDS
        while not _is_finished(run):
            lease = leases.claim(TrainingRun, run.pk)
            if lease is not None:
                with lease.kept_alive(), requeue_on_stop(lease):
                    leases.do(lease)
                continue
            if time.monotonic() >= report:
                report += REPORT_SECONDS
                self.say(f"  {self.row.name}: waiting for {_holder(run)}")
            time.sleep(POLL_SECONDS)

    def _report_failure(self, reason: str) -> None:
        self.complain(f"  {self.row.name} could NOT be trained: {reason}")


def _is_finished(run: TrainingRun) -> bool:
    run.refresh_from_db()
    return run.is_finished


def _holder(run: TrainingRun) -> str:
    if run.lease_until is None:
        return f"training run {run.pk} ({run.stage})"
    until = run.lease_until.strftime("%H:%M:%S")
    return f"training run {run.pk}: another process holds it until {until} UTC or longer ({run.stage})"


@contextmanager
def requeue_on_stop(lease: leases.Lease) -> Iterator[None]:
    """Requeues the job if a signal stops this process; this does not count as a failed attempt."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if not connection.in_atomic_block:
            connection.close()  # the signal may have interrupted a statement
        lease.held().update(**INTERRUPTED, attempts=F("attempts") - 1)
        raise
