"""Calls a function on untrusted bytes in a child process that can do little else. No Django here.

The child has no environment but what Python needs, no inherited files, and limits of time, address space,
file size, threads and output. On Linux it also has, where the kernel allows it,

user        no root: another user without capabilities,
network     no network: a namespace of its own, and no new sockets,
files       nothing to read but Python and its packages, nothing to write but the given directory (Landlock),
calls       no other processes, no programs, no access to other processes (seccomp),
privileges  no gain of privileges by programs.

`Outcome.isolation` names those in effect, so that a caller can insist on some of them. On macOS the child has
the limits, the empty environment and, started by root, the other user; the system does not limit its memory.

The function runs in the same process as the untrusted bytes, so a fault in a library may let them forge the
result. It is JSON, never a pickle, but its content has to be checked like a request's.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from vigia_ml.errors import VigiaError
from vigia_ml.sandbox.process import Limits, Reason, Watch, owned, started

OUTPUT: Final = 4 << 20
FILE_SIZE: Final = 1 << 30


class SandboxFailed(VigiaError):
    """Raised when the child gives no result.

    reason : ``time``, ``memory``, ``output`` (too many bytes in the result, the messages or files),
    ``disk`` (it is full), ``crashed`` (an error or a signal), or ``refused``: the function raised a
    `VigiaError`, whose code, message and details this error has.
    """

    code = "sandbox_failed"

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        code: str | None = None,
        details: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.reason: Reason = reason


@dataclass(frozen=True)
class Outcome:
    """The result of a call.

    value : the function's JSON value. isolation : names of the restrictions in effect, see the module.
    seconds : duration. peak_bytes : most memory held at once, as the child says; None where unknown.
    messages : the last bytes that the child printed.
    """

    value: Any
    isolation: frozenset[str]
    seconds: float
    peak_bytes: int | None
    messages: str


def call(
    function: str,
    *arguments: Any,
    directory: Path,
    seconds: float,
    memory: int,
    output: int = OUTPUT,
    file_size: int = FILE_SIZE,
    paths: Sequence[Path] = (),
) -> Any:
    """Returns the value of ``function(directory, *arguments)``, computed by a child; see `run`."""
    return run(
        function,
        *arguments,
        directory=directory,
        seconds=seconds,
        memory=memory,
        output=output,
        file_size=file_size,
        paths=paths,
    ).value


def run(
    function: str,
    *arguments: Any,
    directory: Path,
    seconds: float,
    memory: int,
    output: int = OUTPUT,
    file_size: int = FILE_SIZE,
    paths: Sequence[Path] = (),
) -> Outcome:
    """Calls ``function(directory, *arguments)`` in a child and returns the outcome.

    Parameters
    ----------
    function : ``module:function``. arguments : JSON values.
    directory : exists; the child's current directory, where it may read and write. The function receives it
        as ``Path(".")``. The child may change every file in it, so the caller keeps its own copy of what it
        needs afterwards, and reads results with `read_file`.
    seconds, memory, output, file_size : see `Limits`. Python with all packages takes 700 MB of the memory.
    paths : further directories that the child may read and import from.

    Raises
    ------
    SandboxFailed : when there is no result. The child and its descendants have ended in any case.
    """
    began = time.monotonic()
    limits = Limits(seconds, memory, output, file_size)
    request = {"function": function, "arguments": arguments}
    with owned(directory) as user, started(request, directory, limits, paths, user) as watch:
        reason = watch.until_end()
    if reason == "time":
        raise _too_slow(limits)
    if reason == "disk":
        raise SandboxFailed("disk", "the disk is full: tell the operator, and try again later")
    if reason is not None:
        raise _too_much(limits)
    return _outcome(watch, time.monotonic() - began, limits)


@contextmanager
def open_file(directory: Path, name: str) -> Iterator[BinaryIO]:
    """Opens a file that a child wrote in its directory.

    Raises
    ------
    SandboxFailed : the file does not exist, or is no regular file.
    """
    try:
        # The child may have put a link or a pipe there.
        place = os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise SandboxFailed("crashed", f"the child left no file {name}: {error.strerror}") from error
    with os.fdopen(place, "rb") as file:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise SandboxFailed("crashed", f"the child left {name}, which is not a file")
        yield file


def read_file(directory: Path, name: str, most: int) -> bytes:
    """Returns the content of a file that a child wrote in its directory.

    Raises
    ------
    SandboxFailed : the file does not exist, is no regular file, or has more than `most` bytes.
    """
    with open_file(directory, name) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise SandboxFailed("output", f"the child's file {name} has more than {most:,} bytes")
    return content


# -- the result ----------------------------------------------------------------------------------------


def _too_slow(limits: Limits) -> SandboxFailed:
    return SandboxFailed("time", f"the child takes more than {limits.seconds:g} seconds")


def _too_much(limits: Limits) -> SandboxFailed:
    message = (
        f"the child writes more than {limits.output:,} bytes, or files of more than {limits.file_size:,}"
    )
    return SandboxFailed("output", message)


def _too_large(limits: Limits) -> SandboxFailed:
    return SandboxFailed("memory", f"the child needs more than {limits.memory:,} bytes of memory")


def _outcome(watch: Watch, duration: float, limits: Limits) -> Outcome:
    messages = _printable(watch.messages.decode("utf-8", "replace"))
    first, _, rest = bytes(watch.result).partition(b"\n")
    try:
        isolation = frozenset(map(str, json.loads(first)))
        outcome = json.loads(rest)
        error = outcome.get("error")
        if error is None:
            peak = outcome["peak_bytes"]
            peak_bytes = peak if isinstance(peak, int) and not isinstance(peak, bool) else None
            return Outcome(outcome["value"], isolation, duration, peak_bytes, messages)
        failed = _failed(error, limits)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        failed = _ended(watch.process.returncode, messages, limits)
    raise failed


def _failed(error: dict[str, Any], limits: Limits) -> SandboxFailed:
    """Returns the error that the child describes; a description of another shape raises."""
    message, code, details = error["message"], error["code"], error["details"]
    reason: Reason = error["reason"]
    if not isinstance(message, str) or not isinstance(code, str) or not isinstance(details, list):
        raise TypeError
    if reason == "memory":
        return _too_large(limits)
    if reason not in ("refused", "output", "crashed"):
        raise ValueError
    kept = [each for each in details if isinstance(each, dict)]
    return SandboxFailed(reason, _printable(message), code=_printable(code)[:64] or None, details=kept)


def _ended(status: int, messages: str, limits: Limits) -> SandboxFailed:
    """Returns the error for a child that ended without a result."""
    if status == -signal.SIGXCPU:
        return _too_slow(limits)
    if status == -signal.SIGKILL:
        return SandboxFailed("memory", "the system killed the child, as it does when memory ends")
    if any(words in messages for words in ("MemoryError", "bad_alloc", "allocate memory")):
        return _too_large(limits)
    how = f"signal {-status}" if status < 0 else f"status {status}"
    last = (messages.strip().splitlines() or ["no message"])[-1][:300]
    return SandboxFailed("crashed", f"the child ended with {how} and without a result: {last}")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in text)
