"""Dataset files, written and read without loading pyarrow: a short-lived process does both.

pyarrow and pandas, which it imports, add 90 MiB to a process. A web process would keep them for its whole
life after one upload. A process that has loaded pyarrow already works without another process.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from django.conf import settings

from core.errors import Busy
from vigia_ml.fitting.dataset_file import Written
from vigia_ml.schema import DatasetSchema, Instance

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

PROCESSES: Final = 2
"""Processes at once; another request waits `WAIT_SECONDS`."""
WAIT_SECONDS: Final = 30.0
COMMAND: Final = (sys.executable, "-m", "vigia_ml.fitting.parquet_child")
FAILED: Final = "the process for dataset files failed; its error is in the log"
ANSWER_SECONDS = 120.0
"""Seconds for a message and its reply; then the process is killed, or it would hold its place forever."""

_free = threading.BoundedSemaphore(PROCESSES)


class Writer(Protocol):
    """The part of `vigia_ml.fitting.parquet.DatasetWriter` that writes uploaded rows."""

    rows: int

    def write_columns(self, columns: dict[str, list[Any]], keys: Sequence[str | None]) -> None: ...

    def write_instances(self, instances: Sequence[Instance], target: str) -> None: ...

    def written(self) -> Written: ...


def dataset_writer(path: Path, schema: DatasetSchema) -> AbstractContextManager[Writer]:
    """Returns a writer of a dataset file; `written` is valid after its context has ended."""
    if "vigia_ml.fitting.parquet" in sys.modules:
        from vigia_ml.fitting.parquet import DatasetWriter

        return DatasetWriter(path, schema)
    return _writer(path, schema)


@contextmanager
def logged_predictions(path: Path) -> Iterator[LoggedPredictions]:
    """Yields the ids of the logged predictions of a dataset file; another process holds them."""
    with _child("predictions", path) as child:
        yield LoggedPredictions(child)


class LoggedPredictions:
    """any : whether the file has logged predictions."""

    def __init__(self, child: _Child) -> None:
        self._child = child
        self.any: bool = child.reply()

    def include_all(self, ids: Sequence[str]) -> bool:
        """Returns whether the file has all these predictions."""
        has_all: bool = self._child.call(ids)
        return has_all


class _Child:
    """A running process that answers one message after the other."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._requests, self._replies = process, process.stdin, process.stdout

    def call(self, message: Any) -> Any:
        self.send(message)
        return self.reply()

    def send(self, message: Any) -> None:
        # It has ended, or was killed: `reply` raises the reason.
        with suppress(BrokenPipeError), self._in_time():
            pickle.dump(message, self._requests)
            self._requests.flush()

    def reply(self) -> Any:
        """Returns the next reply, or raises the error of the disk that ended the process, such as ENOSPC."""
        try:
            with self._in_time():
                reply = pickle.load(self._replies)  # noqa: S301 - of our own process
        except (EOFError, pickle.UnpicklingError):  # nothing, or a part of a reply
            raise RuntimeError(FAILED) from None
        if isinstance(reply, OSError):
            raise reply
        return reply

    def close(self) -> None:
        with suppress(BrokenPipeError):  # it has not read everything
            self._requests.close()

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        timer = threading.Timer(ANSWER_SECONDS, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


@contextmanager
def _child(*task: Any) -> Iterator[_Child]:
    pipe = subprocess.PIPE
    if not _free.acquire(timeout=WAIT_SECONDS):
        raise Busy(
            f"this process stores {PROCESSES} uploads of training rows already: send the request again later"
        )
    try:
        with subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, cwd=settings.BASE_DIR) as process:
            child = _Child(process)
            try:
                child.send(task)
                yield child
            finally:
                process.kill()  # it has replied to everything, or is not needed any more
                child.close()
    finally:
        _free.release()


class _SeparateWriter:
    def __init__(self, child: _Child) -> None:
        self.rows = 0
        self._child = child
        self._written: Written | None = None

    def write_columns(self, columns: dict[str, list[Any]], keys: Sequence[str | None]) -> None:
        self.rows = self._child.call(("write_columns", columns, keys))

    def write_instances(self, instances: Sequence[Instance], target: str) -> None:
        self.rows = self._child.call(("write_instances", instances, target))

    def finish(self) -> None:
        self._written = Written(*self._child.call(None))

    def written(self) -> Written:
        assert self._written is not None
        return self._written


@contextmanager
def _writer(path: Path, schema: DatasetSchema) -> Iterator[Writer]:
    with _child("write", path, schema) as child:
        writer = _SeparateWriter(child)
        yield writer
        writer.finish()
