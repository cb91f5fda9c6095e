"""A Dask cluster for the trials of a search. No Django here.

Scheduler and workers run the same code as the worker that searches: they are handed references to it. Joblib
waits for ever for a cluster that was lost, so its call runs in a thread and the cluster is watched meanwhile.
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
"""How long the scheduler may be silent before it counts as lost."""
WORKERS_SECONDS: Final = 30.0
"""How long it may be without a worker."""
LOOK_SECONDS: Final = 1.0


class ClusterLost(RuntimeError):
    """The cluster is not there, is there no more, or runs other code."""

    in_words = True


class Cluster:
    """A connected cluster. width : how many trials it does at a time."""

    def __init__(self, client: Any, address: str) -> None:
        self._client, self._address = client, address
        self.width = sum(client.ncores().values())
        self._seen = time.monotonic()

    def run(self, work: Callable[[Callable[[int], None]], None], told: Callable[[int], None]) -> None:
        """Calls ``work(told)`` in a thread, with joblib's backend set to this cluster.

        Parameters
        ----------
        told : called in the caller's thread; what it raises ends the waiting.

        Raises
        ------
        ClusterLost : in words, when scheduler or workers went away.
        """
        said: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()

        def act() -> None:
            try:
                with joblib.parallel_config(backend="dask", client=self._client):
                    work(said.put)
                said.put(None)
            except BaseException as error:  # for the caller's thread
                said.put(error)

        threading.Thread(target=act, daemon=True, name="search-on-dask").start()
        while True:
            try:
                found = said.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                self._check()
                continue
            if isinstance(found, BaseException):
                if isinstance(found, CancelledError) or not self._answers():
                    # Whatever was under way when it went: cancelled, refused, in the middle of a message.
                    said_why = str(found) or type(found).__name__
                    raise ClusterLost(
                        f"the Dask scheduler at {self._address} was lost: {said_why}"
                    ) from found
                raise found
            if found is None:
                return
            told(found)

    def _answers(self) -> bool:
        try:
            self._client.sync(self._client.scheduler.ncores, callback_timeout=SCHEDULER_SECONDS)
        except Exception:  # whatever a client says that has lost its scheduler
            return False
        return True

    def _check(self) -> None:
        if self._client.status not in ("running", "connecting"):
            raise ClusterLost(f"the Dask scheduler at {self._address} went away")
        if self._client.status == "running" and self._client.scheduler_info()["workers"]:
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > WORKERS_SECONDS:
            raise ClusterLost(f"the Dask scheduler at {self._address} has lost its workers")


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """The cluster of a scheduler, for the block.

    Raises
    ------
    ClusterLost : it does not answer, has no workers, or these run other code.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterLost(
            "DASK_SCHEDULER is set, but Dask is not installed here: see requirements-dask.txt"
        ) from error
    try:
        client: Any = Client(address, timeout=SCHEDULER_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ClusterLost(f"the Dask scheduler at {address} does not answer: {error}") from error
    try:
        found = Cluster(client, address)
        if not found.width:
            raise ClusterLost(f"the Dask scheduler at {address} has no workers")
        _check_code(client)
        yield found
    finally:
        client.close(timeout=SCHEDULER_SECONDS)


def scikit_learn() -> str:
    """Asked of scheduler and workers: the name of this function is sent, so they need this code."""
    return version("scikit-learn")


def _check_code(client: Any) -> None:
    try:
        answers = {"the scheduler": client.run_on_scheduler(scikit_learn), **client.run(scikit_learn)}
    except Exception as error:  # whatever the other side raised
        said = f"Dask's scheduler and workers must have Vigía's code on their path: {error}"
        raise ClusterLost(said) from error
    here = scikit_learn()
    for who, there in answers.items():
        if there != here:
            raise ClusterLost(f"{who} has scikit-learn {there}, this process {here}")
