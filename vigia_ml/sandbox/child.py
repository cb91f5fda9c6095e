"""The child's side of `vigia_ml.sandbox`: a script that restricts itself, then calls one function.

The request is a JSON object on the input (see `vigia_ml.sandbox`). The first line on the result's descriptor
is a JSON list of the restrictions, an empty second one says that the call begins, the third is the result.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import json
import math
import os
import resource
import sys
from pathlib import Path
from typing import Any, BinaryIO

MEMORY_MESSAGES = ("bad_alloc", "bad allocation", "allocate memory", "malloc of size", "Cannot allocate")
SYSTEM_PATHS = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/usr/share/zoneinfo",
    "/dev/null", "/dev/urandom", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu",
)  # fmt: skip
STATUS = "/proc/self/status"
THREADS = 2_000
"""Threads that the child may add to those that its user has already. The kernel counts per user, in other
containers as well, which the child does not see; hence so many."""


def main() -> None:
    with os.fdopen(0, "rb", closefd=False) as source:
        request = json.load(source)
    os.close(0)
    os.open(os.devnull, os.O_RDONLY)  # takes the number of the request, 0
    _find_library(request["library"])
    # Where memory ends, the system shall end this process, not the one that waits for it.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    # Opened now, because the process cannot open it any more later.
    status = os.open(STATUS, os.O_RDONLY) if Path(STATUS).exists() else None
    isolation = _restrict(request)
    with os.fdopen(request["result"], "wb") as result:
        result.write(json.dumps(isolation).encode() + b"\n")
        sys.path[:] = request["import_paths"]
        outcome = _outcome(request, result)
        outcome["peak_bytes"] = _peak(status)
        result.write(json.dumps(outcome).encode() + b"\n")
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(0)  # runs no code of the function's objects


def _find_library(folder: str) -> None:
    """Makes `vigia_ml` importable without its parent directory, where a project has other files."""
    spec = importlib.util.spec_from_file_location(
        "vigia_ml", Path(folder) / "__init__.py", submodule_search_locations=[folder]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["vigia_ml"] = module
    spec.loader.exec_module(module)


def _restrict(request: dict[str, Any]) -> list[str]:
    """Gives up what the function does not need, and returns the names of the restrictions in effect."""
    from vigia_ml.sandbox import kernel

    user, group = request["user"], request["group"]
    no_network = kernel.leave_network()
    # Root may keep the right to read where its Python lies in a directory of its own, and only where Landlock
    # limits reading to that Python.
    unreachable = user is not None and not request["reachable"]
    if unreachable and not kernel.landlock_version():
        user = None
    _limit(request, os.geteuid() if user is None else user)
    if user is not None:
        kernel.become(user, group, keep_reading=unreachable)
    kernel.drop_capabilities(*([kernel.CAP_DAC_READ_SEARCH] if unreachable and user is not None else []))
    privileges = kernel.no_new_privileges()
    kernel.die_with_parent(request["parent"])
    readable = [*SYSTEM_PATHS, *request["import_paths"], request["library"], *request["prefixes"]]
    files = kernel.only_paths(map(Path, readable), [Path(), Path(os.devnull)])
    calls = kernel.only_harmless_calls()
    names = {
        "user": os.geteuid() != 0 and (user is not None or request["user"] is None),
        "network": no_network or calls,
        "files": files,
        "calls": calls,
        "privileges": privileges,
    }
    return [name for name, applied in names.items() if applied]


def _limit(request: dict[str, Any], user: int) -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: request["file_size"],
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_AS: request["memory"],
        resource.RLIMIT_NPROC: _threads(user) + THREADS,
    }
    for limit, value in limits.items():
        _lower(limit, value)


def _lower(limit: int, value: int) -> None:
    _, most = resource.getrlimit(limit)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    # macOS has limits that it does not let a process set; its own ones hold there.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(limit, (value, value))


def _threads(user: int) -> int:
    """Returns the number of threads of a user's processes."""
    count = 0
    with contextlib.suppress(OSError):
        for process in Path("/proc").iterdir():
            # A process may end between two lines.
            with contextlib.suppress(OSError):
                if process.name.isdigit() and process.stat().st_uid == user:
                    count += len(os.listdir(process / "task"))  # noqa: PTH208 - several times as fast
    return count


def _outcome(request: dict[str, Any], result: BinaryIO) -> dict[str, Any]:
    """Returns the function's result, or its error in words."""
    module, _, name = request["function"].partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
        # The parent counts the seconds of the call from here on.
        result.write(b"\n")
        result.flush()
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        _lower(resource.RLIMIT_CPU, math.ceil(used) + request["seconds"])
        value = function(Path(), *request["arguments"])
        json.dumps(value)
    except BaseException as error:  # whatever foreign code raises is a result here
        return {"error": _described(error)}
    return {"value": value}


def _described(error: BaseException) -> dict[str, Any]:
    from vigia_ml.errors import VigiaError

    message = str(error)[:2_000]
    if isinstance(error, VigiaError):
        return {
            "reason": "refused",
            "code": error.code,
            "message": error.message[:2_000],
            "details": error.details[:100],
        }
    reason = "crashed"
    if isinstance(error, MemoryError) or any(words in message for words in MEMORY_MESSAGES):
        reason = "memory"
    elif isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.ENOSPC):
        reason = "output"
    return {"reason": reason, "code": "", "message": f"{type(error).__name__}: {message}", "details": []}


def _peak(status: int | None) -> int | None:
    """Returns the most memory that the process held at once, in bytes."""
    if status is not None:
        for line in os.pread(status, 8_192, 0).splitlines():
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


if __name__ == "__main__":
    main()
