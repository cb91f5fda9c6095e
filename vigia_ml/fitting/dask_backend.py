"""A Dask cluster for the trials of a search. No Django here.

Scheduler and workers must have the code of the searching worker, because they receive references to it.
Joblib reports a lost scheduler at once but waits for ever for lost workers, so a thread looks for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import Any, Final

import joblib

SCHEDULER_SECONDS: Final = 10.0
"""Seconds without an answer after which the scheduler counts as lost."""
WORKERS_SECONDS: Final = 30.0
"""Seconds without a worker after which the cluster counts as lost."""
LOOK_SECONDS: Final = 1.0


class ClusterLost(RuntimeError):
    """Raised when the cluster is unreachable, is lost, or runs other code."""

    in_words = True


@contextmanager
def connected(address: str) -> Iterator[int]:
    """Sets joblib's backend to a scheduler's cluster for the block; yields the number of parallel trials.

    Raises
    ------
    ClusterLost : when the scheduler does not answer or is lost, or the workers are lost or run other code.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterLost(
            "DASK_SCHEDULER is set, but Dask is not installed: install requirements-dask.txt"
        ) from error
    scheduler = f"the Dask scheduler at {address}"
    try:
        client: Any = Client(address, timeout=SCHEDULER_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ClusterLost(f"{scheduler} does not answer: {error}") from error
    ended, workers_lost = threading.Event(), threading.Event()
    try:
        width = sum(client.ncores().values())
        if not width:
            raise ClusterLost(f"{scheduler} has no workers")
        _check_code(client)
        watch = threading.Thread(target=_watch, args=(client, ended, workers_lost), name="dask", daemon=True)
        watch.start()
        with joblib.parallel_config(backend="dask", client=client):
            yield width
    except Exception as error:
        if workers_lost.is_set():
            raise ClusterLost(f"{scheduler} has lost its workers") from error
        if isinstance(error, CancelledError) or not _answers(client):
            # The loss may interrupt any call: a cancelled task, a refused connection, half a message.
            reason = str(error) or type(error).__name__
            raise ClusterLost(f"{scheduler} was lost: {reason}") from error
        raise
    finally:
        ended.set()
        client.close(timeout=SCHEDULER_SECONDS)


def _watch(client: Any, ended: threading.Event, workers_lost: threading.Event) -> None:
    """Closes the client when the cluster has lost its workers, which cancels joblib's call."""
    seen = time.monotonic()
    while not ended.wait(LOOK_SECONDS):
        # A client whose scheduler or event loop has gone raises these, a closed one KeyError; joblib reports
        # that loss.
        with suppress(OSError, RuntimeError, CancelledError, KeyError):
            if client.scheduler_info()["workers"]:
                seen = time.monotonic()
            elif time.monotonic() - seen > WORKERS_SECONDS:
                workers_lost.set()
                client.close(timeout=SCHEDULER_SECONDS)
                return


def _answers(client: Any) -> bool:
    try:
        client.sync(client.scheduler.ncores, callback_timeout=SCHEDULER_SECONDS)
    except Exception:  # a client without its scheduler may raise anything
        return False
    return True


def scikit_learn() -> str:
    """Returns scikit-learn's version; scheduler and workers get this function by name, so need this code."""
    return version("scikit-learn")


def _check_code(client: Any) -> None:
    try:
        answers = {"the scheduler": client.run_on_scheduler(scikit_learn), **client.run(scikit_learn)}
    except Exception as error:  # the other side may raise anything
        message = f"Dask's scheduler and workers must have Vigía's code on their path: {error}"
        raise ClusterLost(message) from error
    here = scikit_learn()
    for name, other in answers.items():
        if other != here:
            raise ClusterLost(f"{name} has scikit-learn {other}, this process {here}")
