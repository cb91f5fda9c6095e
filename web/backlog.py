"""The backlog of a listening socket that is about to close.

The kernel resets all connections in the backlog when the last process closes the socket. A connection may
arrive between the last `accept` and that `close`, so the kernel first has to drop new handshakes: their
clients repeat them after a second, when the port refuses them. A proxy then tries another server
(docs/decisions/0023).
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

HANDSHAKE_SECONDS: Final = 0.05
"""Seconds in which handshakes that have begun reach the backlog."""
SO_ATTACH_FILTER: Final = 26  # of Linux, on the architectures that have wheels of our packages
# Classic BPF (code, jump if true, jump if false, operand) over a TCP header, whose 14th byte holds the flags.
_DROP_SYN: Final = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the flags
        (0x45, 0, 1, 0x02),  # SYN is not set: skip an instruction
        (0x06, 0, 0, 0),  # drop the packet
        (0x06, 0, 0, 0xFFFFFFFF),  # pass the whole packet
    )
)


def drop_handshakes(listener: socket.socket) -> None:
    """Makes the kernel drop further SYNs of a socket, whichever process accepts. Does nothing off Linux."""
    if sys.platform != "linux":
        return  # the number is another option there
    program = ctypes.create_string_buffer(_DROP_SYN, len(_DROP_SYN))
    with suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET,
            SO_ATTACH_FILTER,
            struct.pack("HP", len(_DROP_SYN) // 8, ctypes.addressof(program)),
        )


def is_open_in(process: int, listener: socket.socket) -> bool:
    """Returns whether a process has this socket open; True if the system does not say."""
    inode = f"socket:[{os.fstat(listener.fileno()).st_ino}]"
    try:
        files = list(Path(f"/proc/{process}/fd").iterdir())
    except FileNotFoundError:  # the process has ended
        return False
    except OSError:
        return True
    for file in files:
        with suppress(OSError):  # closed in the meantime
            if str(file.readlink()) == inode:
                return True
    return False
