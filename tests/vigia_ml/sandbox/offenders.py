"""Functions that try what the sandbox forbids. The child imports this module, so it needs Python alone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def echo(directory: Path, *arguments: Any) -> list[Any]:
    return list(arguments)


def environment(directory: Path) -> dict[str, str]:
    return dict(os.environ)


def read(directory: Path, path: str) -> str:
    return Path(path).read_bytes()[:100].decode("utf-8", "replace")


def write(directory: Path, path: str) -> str:
    Path(path).write_text("was here")
    return path


def descriptors(directory: Path) -> list[int]:
    found = []
    for place in range(3, 256):
        with contextlib.suppress(OSError):
            os.fstat(place)
            found.append(place)
    return found


def connect(directory: Path, port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        return connection.recv(10).decode()


def listen(directory: Path) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).bind(("127.0.0.1", 0))


def fork_bomb(directory: Path) -> int:
    children = 0
    while True:
        if os.fork() == 0:
            time.sleep(60)
        children += 1


def program(directory: Path) -> str:
    return subprocess.run([sys.executable, "-V"], capture_output=True, check=True, text=True).stdout


def thread_bomb(directory: Path) -> int:
    threading.stack_size(32 << 10)
    stop = threading.Event()
    threads = 0
    try:
        while threads < 10_000:
            threading.Thread(target=stop.wait, daemon=True).start()
            threads += 1
    except RuntimeError:
        pass
    return threads


def allocate(directory: Path, size: int) -> int:
    return len(bytearray(size))


def allocate_in_c(directory: Path, size: int) -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.memset(ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size))), 1, ctypes.c_size_t(size))


def forever(directory: Path) -> None:
    while True:
        pass


def sleep(directory: Path, seconds: float) -> str:
    time.sleep(seconds)
    return "awake"


def deaf(directory: Path) -> None:
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU):
        signal.signal(each, signal.SIG_IGN)
    while True:
        pass


def shout(directory: Path) -> None:
    line = b"x" * 65_536
    while True:
        os.write(1, line)


def large_result(directory: Path, size: int) -> str:
    return "x" * size


def whisper(directory: Path) -> str:
    print("a last word")
    return "done"


def forged(directory: Path, text: str) -> None:
    for place in range(3, 256):
        with contextlib.suppress(OSError):
            os.write(place, text.encode())
    os._exit(0)


def large_file(directory: Path, size: int) -> None:
    with (directory / "large").open("wb") as file:
        while file.tell() < size:
            file.write(b"x" * 65_536)


def many_files(directory: Path, count: int, size: int) -> None:
    for number in range(count):
        (directory / f"part{number}").write_bytes(b"x" * size)


def hidden_file(directory: Path) -> None:
    os.close(os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600))


def link(directory: Path, target: str) -> None:
    (directory / "link").symlink_to(target)


def grandchild(directory: Path) -> str:
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
    return "left one behind"


def kill(directory: Path, process: int) -> None:
    os.kill(process, signal.SIGKILL)


def limit_other(directory: Path, process: int) -> None:
    import resource

    resource.prlimit(process, resource.RLIMIT_CPU, (1, 1))


def crash(directory: Path) -> None:
    ctypes.string_at(0)


def killed(directory: Path) -> None:
    signal.raise_signal(signal.SIGKILL)


def leave(directory: Path) -> None:
    os._exit(3)


def refuse(directory: Path) -> None:
    from vigia_ml.errors import VigiaError

    raise VigiaError("a reason in words", code="a_code", details=[{"row": 3}])


def who(directory: Path) -> list[int]:
    return [os.getuid(), os.geteuid(), os.getgid(), *os.getgroups()]


def regain(directory: Path) -> None:
    os.setuid(0)


def write_file(directory: Path, name: str, content: str) -> Callable[..., Any] | None:
    (directory / name).write_text(content)
    return None


def signal_by_file(directory: Path, process: int) -> None:
    import fcntl

    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, process)
    fcntl.fcntl(reader, 10, signal.SIGKILL)  # F_SETSIG
    fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(writer, b"x")


def signal_by_control(directory: Path, process: int) -> None:
    import fcntl
    import struct

    left, _ = socket.socketpair()
    fcntl.ioctl(left, 0x8901, struct.pack("i", process))  # FIOSETOWN
