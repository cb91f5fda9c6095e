"""First versions of the models that have none, from sample data or from what an operator put in its place.

Several are trained side by side, each in a process forked from one that has imported what training needs. A
start takes up the run that an interrupted one left behind instead of requesting another.
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
from types import FrameType
from typing import Final, NoReturn

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
"""How long the processes may take to end when they are told to: this one is not waited for much longer."""
ASK_SECONDS: Final = 0.5
TELL_SECONDS: Final = 10.0

Say = Callable[[str], None]
Unfinished = (TrainingRun.Status.QUEUED, TrainingRun.Status.RUNNING)


def requeue_interrupted() -> int:
    """Queues every job again that is held by a process that is gone, whose lease need not be waited for.

    Only for a start that knows that nothing else works on this database. Returns how many there were.
    """
    return sum(
        kind._default_manager.filter(status=leases.Status.RUNNING).update(
            status=leases.Status.QUEUED,
            lease_owner=None,
            lease_until=None,
            stage="interrupted; queued again",
            percent=0,
        )
        for kind in leases.kinds()
    )


def side_by_side(tasks: Sequence[Callable[[], None]]) -> None:
    """Does the tasks, as many at once as there are processors, each in a process of its own.

    One after the other where processes cannot be forked, or would not see what this one has not committed.

    Raises
    ------
    CommandError : a process died, or what it did raised an error (which it has printed).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if cores == 1 or len(tasks) < 2 or connection.in_atomic_block:
        for task in tasks:
            task()
        return
    connections.close_all()  # none is shared by two processes
    context = multiprocessing.get_context("fork")
    processes: list[ForkProcess] = []
    try:
        for task in tasks:
            running = [process for process in processes if process.is_alive()]
            if len(running) == cores:
                wait([process.sentinel for process in running])
            process = context.Process(target=_alone, args=[task])
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
            f"{failed} of {len(processes)} processes of the start failed; see above, start again"
        )


def _alone(task: Callable[[], None]) -> None:
    try:
        task()
    except (KeyboardInterrupt, SystemExit):  # told to stop: nothing to explain
        sys.exit(1)
    finally:
        connections.close_all()


def stop_when_told() -> None:
    """Lets SIGTERM end the program as Ctrl-C does: what was begun is given back."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


def import_what_training_needs() -> None:
    """Once, before processes are forked: each of them would take seconds to import it again."""
    libraries.import_all()
    for module in ("training.runs.execution", "recommender.training_run"):
        importlib.import_module(module)


class FirstVersion:
    """The first version of one model."""

    def __init__(self, row: RegisteredModel, say: Say, complain: Say) -> None:
        self.row, self.say, self.complain = row, say, complain

    def make(self) -> None:
        """Trains it, and says what became of it; a model that cannot be trained does not stop the others."""
        started = time.monotonic()
        run = self._left_behind() or self._requested()
        if run is not None:
            self._finish(run)
            self._tell(run, time.monotonic() - started)

    def _left_behind(self) -> TrainingRun | None:
        """The run of an interrupted start, or one that somebody asked for meanwhile."""
        waiting = TrainingRun.objects.filter(registered_model=self.row, status__in=Unfinished)
        return waiting.order_by("id").first()

    def _source(self, samples: Path, ending: str) -> Path:
        given = settings.VAR_DIR / "first-data" / f"{self.row.name}.csv"
        return given if given.exists() else samples / f"{self.row.name}.{ending}"

    def _requested(self) -> TrainingRun | None:
        if providers.find(self.row.name) is not None:
            return self._index()
        path = self._source(SAMPLES, "csv")
        if not path.exists():
            how = f"manage.py load_dataset {self.row.name} FILE --train --activate"
            self.say(f"  {self.row.name}: no data yet; load some with {how}")
            return None
        try:
            with path.open("rb") as stream, transaction.atomic():
                dataset = uploads.from_csv(self.row, stream, by=None, source=path.name)
                reason = f"first version, trained from {path.name}"
                return run_requests.request(
                    self.row, dataset, mode=TrainingRun.Mode.REPLACE, by=None, activation_reason=reason
                )
        except InvalidRows as error:
            self._not_made(f"{path}: {error.message}")
        return None

    def _index(self) -> TrainingRun | None:
        """A catalogue that is empty gets the shipped movies first; one that is not stays as it is."""
        path = self._source(MOVIES, "jsonl")
        if Movie.objects.exists():
            path = Path("the catalogue")
        else:
            try:
                with transaction.atomic():  # movies and what people did with them, or neither
                    call_command("load_movies", str(path), verbosity=0, stdout=io.StringIO())
                    if path.parent == MOVIES:
                        people = str(MOVIES / "interactions.csv")
                        call_command("load_interactions", people, verbosity=0, stdout=io.StringIO())
            except CommandError as error:
                self._not_made(f"{path}: {error}")
                return None
        reason = f"first version, built from {path.name}"
        return run_requests.request_again(self.row, by=None, activation_reason=reason)

    def _tell(self, run: TrainingRun, seconds: float) -> None:
        run.refresh_from_db()
        if run.status != TrainingRun.Status.SUCCEEDED:
            self._not_made(run.error or str(run.status))
            return
        version = run.version
        assert version is not None
        metric = comparison.primary_metric(self.row)
        assert metric is not None
        said = "active" if version.activations.exists() else "NOT active: its gate is not passed"
        value = version.metrics.get(metric)
        shown = "–" if value is None else f"{value:.3f}"
        self.say(f"  {self.row.name}: version {version.number} is {said}; {metric} {shown}; {seconds:.1f} s")

    def _finish(self, run: TrainingRun) -> None:
        """Executes the run, or waits for the process that holds it and takes over when its lease runs out."""
        tell = time.monotonic() + ASK_SECONDS
        while not _is_finished(run):
            lease = leases.claim(TrainingRun, run.pk)
            if lease is not None:
                with lease.kept_alive(), given_back(lease):
                    leases.do(lease)
                continue
            if time.monotonic() >= tell:
                tell += TELL_SECONDS
                self.say(f"  {self.row.name}: waiting for {_holder(run)}")
            time.sleep(ASK_SECONDS)

    def _not_made(self, why: str) -> None:
        self.complain(f"  {self.row.name} could NOT be trained: {why}")


def _is_finished(run: TrainingRun) -> bool:
    run.refresh_from_db()
    return run.is_finished


def _holder(run: TrainingRun) -> str:
    if run.lease_until is None:
        return f"training run {run.pk} ({run.stage})"
    until = run.lease_until.strftime("%H:%M:%S")
    return f"training run {run.pk}: another process holds it until {until} UTC or longer ({run.stage})"


@contextmanager
def given_back(lease: leases.Lease) -> Iterator[None]:
    """Gives the job back when this process is told to stop; that is no attempt that failed."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if not connection.in_atomic_block:
            connection.close()  # it may have been in the middle of a statement
        lease.held().update(
            status=leases.Status.QUEUED,
            attempts=F("attempts") - 1,
            lease_owner=None,
            lease_until=None,
            stage="interrupted; queued again",
            percent=0,
        )
        raise
