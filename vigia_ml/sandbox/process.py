"""Starts and watches the child process of `vigia_ml.sandbox`. No Django here."""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

Reason = Literal["time", "memory", "output", "disk", "crashed", "refused"]

MESSAGES: Final = 4_096
"""Bytes of the child's messages that an error repeats."""
START: Final = 60.0
"""Seconds until the child has imported the function, on a machine that is busy."""
LINES_BEFORE_CALL: Final = 2
NOBODY: Final = (65534, 65534)
POLL: Final = 0.1
LEAST_FREE: Final = 256 * 2**20
"""Free bytes of the disk below which a child is ended: others need the disk, too."""
ENVIRONMENT: Final = {
    "LC_ALL": "C.UTF-8",
    "TMPDIR": ".",
    "HOME": ".",
    "ORT_DISABLE_TELEMETRY": "1",
    # One thread: a trial measures what a request costs, and each thread takes address space.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}
LINKER: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # some Pythons do not start without


@dataclass(frozen=True)
class Limits:
    """Limits of a child.

    seconds : of the function's call, on the clock and of the processor. memory : bytes of address space.
    output : bytes of the result, and of what the child prints. file_size : bytes of the directory's files.
    """

    seconds: float
    memory: int
    output: int
    file_size: int


@contextlib.contextmanager
def owned(directory: Path) -> Iterator[int | None]:
    """Gives the directory's files to the child's user while it runs; None where we are not root."""
    if os.geteuid() != 0:
        yield None
        return
    before = directory.stat()
    for path in [directory, *directory.rglob("*")]:
        os.chown(path, *NOBODY, follow_symlinks=False)
    try:
        yield NOBODY[0]
    finally:
        os.chown(directory, before.st_uid, before.st_gid)


@contextlib.contextmanager
def started(
    request: dict[str, Any], directory: Path, limits: Limits, paths: Sequence[Path], user: int | None
) -> Iterator[Watch]:
    """Starts a child for `request` and yields its watch; ends the child and its group at last."""
    library = Path(__file__).resolve().parent.parent
    imports = [*_import_paths(library), *(str(path.resolve()) for path in paths)]
    prefixes = sorted({sys.base_prefix, sys.base_exec_prefix, sys.prefix})
    result, theirs = os.pipe()
    content = request | {
        "library": str(library),
        "import_paths": imports,
        "prefixes": prefixes,
        "parent": os.getpid(),
        "result": theirs,
        "user": user,
        "group": NOBODY[1],
        "reachable": all(_is_reachable(Path(path)) for path in (*imports, *prefixes, str(library))),
        "seconds": math.ceil(limits.seconds) + 1,
        "memory": limits.memory,
        "file_size": limits.file_size,
    }
    kept = {name: os.environ[name] for name in LINKER if name in os.environ}
    try:
        with tempfile.TemporaryFile() as source:
            source.write(json.dumps(content).encode())
            source.seek(0)
            process = _python(library, source, theirs, directory, kept)
        os.close(theirs)
        theirs = -1
        try:
            yield Watch(process, result, directory, limits)
        finally:
            # The leader is not reaped yet, so the group's number is still its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    finally:
        os.close(result)
        if theirs >= 0:
            os.close(theirs)


def _python(
    library: Path, source: IO[bytes], result: int, directory: Path, kept: dict[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # Neither the user's site-packages nor .pth files, which run code.
        [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(library / "sandbox" / "child.py")],
        stdin=source,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(result,),
        cwd=directory,
        env=ENVIRONMENT | kept,
        start_new_session=True,
    )


def _import_paths(library: Path) -> list[str]:
    """Returns the directories of the standard library and of packages, without the project's own."""
    paths = []
    for each in sys.path:
        path = Path(each or ".").resolve()
        is_packages = {"site-packages", "dist-packages"} & set(path.parts)
        is_standard = any(path.is_relative_to(prefix) for prefix in {sys.base_prefix, sys.base_exec_prefix})
        if path.exists() and path != library.parent and (is_packages or is_standard):
            paths.append(str(path))
    if library.parent.name in ("site-packages", "dist-packages"):
        paths.append(str(library.parent))
    return list(dict.fromkeys(paths))


def _is_reachable(path: Path) -> bool:
    """Returns whether every user can read below a path."""
    others = [(each.stat().st_mode & 0o001) for each in (path, *path.parents) if each.is_dir()]
    return all(others) and bool(path.stat().st_mode & 0o004)


class Watch:
    """Reads what a child writes, within limits, until it ends.

    Attributes
    ----------
    result : bytes of the result so far. messages : the last bytes that the child printed.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], result: int, directory: Path, limits: Limits
    ) -> None:
        self.process, self.result, self.messages = process, bytearray(), bytearray()
        self._place, self._directory, self._limits = result, directory, limits
        self._printed = 0

    def until_end(self) -> Reason | None:
        """Returns the limit that the child passes, or None when it ends by itself."""
        assert self.process.stdout is not None
        places = (self._place, self.process.stdout.fileno())
        deadline, has_begun = time.monotonic() + START, False
        with selectors.DefaultSelector() as selector:
            for place in places:
                os.set_blocking(place, False)
                selector.register(place, selectors.EVENT_READ)
            while True:
                has_ended = self._has_ended()
                ready = [key.fd for key, _ in selector.select(0 if has_ended else POLL)]
                for place in ready:
                    if not self._read(place):
                        selector.unregister(place)
                if not has_begun and self.result.count(b"\n") >= LINES_BEFORE_CALL:
                    deadline, has_begun = time.monotonic() + self._limits.seconds, True
                output = max(len(self.result), self._printed)
                if output > self._limits.output or self._disk() > self._limits.file_size:
                    return "output"
                if not has_ended and shutil.disk_usage(self._directory).free < LEAST_FREE:
                    return "disk"
                if has_ended and not ready:  # a descendant may hold the pipes open
                    return None
                if time.monotonic() > deadline:
                    return "time"
                if not selector.get_map() and not has_ended:
                    time.sleep(POLL)

    def _read(self, place: int) -> bool:
        """Reads once from a pipe; returns whether more may come."""
        chunk = os.read(place, 1 << 16)
        if place == self._place:
            self.result += chunk
        else:
            self._printed += len(chunk)
            self.messages = (self.messages + chunk)[-MESSAGES:]
        return bool(chunk)

    def _has_ended(self) -> bool:
        """Returns whether the process has ended, without reaping it."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.process.pid, options) is not None

    def _disk(self) -> int:
        total = 0
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
        return total
