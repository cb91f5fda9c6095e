"""A Dask cluster for the trials of a search. No Django here.

Scheduler and workers must have the code of the searching worker, because they receive references to it.
Joblib waits for ever for a lost cluster, so its call runs in a thread, and the caller's thread checks the
cluster.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
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


class Cluster:
    """A connected cluster. width : number of parallel trials."""

    def __init__(self, client: Any, address: str) -> None:
        self._client, self._address = client, address
        self.width = sum(client.ncores().values())
        self._seen = time.monotonic()

    def run(self, work: Callable[[Callable[[int], None]], None], progress: Callable[[int], None]) -> None:
        """Calls ``work(progress)`` in a thread, with joblib's backend set to this cluster.

        Parameters
        ----------
        progress : called in the caller's thread; an exception from it ends the wait.

        Raises
        ------
        ClusterLost : when scheduler or workers are lost.
        """
        messages: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()

        def target() -> None:
            try:
                with joblib.parallel_config(backend="dask", client=self._client):
                    work(messages.put)
                messages.put(None)
            except BaseException as error:  # for the caller's thread
                messages.put(error)

        threading.Thread(target=target, daemon=True, name="search-on-dask").start()
        while True:
            try:
                message = messages.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                self._check()
                continue
            if isinstance(message, BaseException):
                if isinstance(message, CancelledError) or not self._answers():
                    # The loss may interrupt any call: a cancelled task, a refused connection, half a message.
                    reason = str(message) or type(message).__name__
                    raise ClusterLost(
                        f"the Dask scheduler at {self._address} was lost: {reason}"
                    ) from message
                raise message
            if message is None:
                return
            progress(message)

    def _answers(self) -> bool:
        try:
            self._client.sync(self._client.scheduler.ncores, callback_timeout=SCHEDULER_SECONDS)
        except Exception:  # a client without its scheduler may raise anything
            return False
        return True

    def _check(self) -> None:
        if self._client.status not in ("running", "connecting"):
            raise ClusterLost(f"the Dask scheduler at {self._address} closed the connection")
        if self._client.status == "running" and self._client.scheduler_info()["workers"]:
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > WORKERS_SECONDS:
            raise ClusterLost(f"the Dask scheduler at {self._address} has lost its workers")


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Connects to a scheduler's cluster for the block.

    Raises
    ------
    ClusterLost : when the scheduler does not answer, has no workers, or the workers run other code.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterLost(
            "DASK_SCHEDULER is set, but Dask is not installed: install requirements-dask.txt"
        ) from error
    try:
        client: Any = Client(address, timeout=SCHEDULER_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ClusterLost(f"the Dask scheduler at {address} does not answer: {error}") from error
    try:
        cluster = Cluster(client, address)
        if not cluster.width:
            raise ClusterLost(f"the Dask scheduler at {address} has no workers")
        _check_code(client)
        yield cluster
    finally:
        client.close(timeout=SCHEDULER_SECONDS)


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
