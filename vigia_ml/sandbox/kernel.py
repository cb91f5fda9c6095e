"""Restricts the current process with the means of the Linux kernel. Standard library only; no Django here.

Each function returns whether the kernel applied the restriction, so that the caller can report what is
missing. A restriction is never lifted: it holds for the rest of the process. Constants are those of the
kernel's headers (``linux/landlock.h``, ``linux/seccomp.h``, ``linux/capability.h``).
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

IS_LINUX: Final = sys.platform == "linux"
_libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 8, 22, 38
SECCOMP_MODE_FILTER = 2
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC, CLONE_THREAD = 0x10000000, 0x40000000, 0x08000000, 0x00010000
CAP_DAC_READ_SEARCH, CAPABILITY_VERSION_3 = 2, 0x20080522
O_TMPFILE_BIT = 0o20000000
EPERM, ENOSYS = 1, 38


def _prctl(option: int, value: int, pointer: object = 0) -> bool:
    arguments = [ctypes.c_ulong(value), pointer if pointer else ctypes.c_ulong(0)]
    return bool(_libc.prctl(option, *arguments, ctypes.c_ulong(0), ctypes.c_ulong(0)) == 0)


def no_new_privileges() -> bool:
    """Makes programs with the set-user-id bit ordinary ones."""
    return IS_LINUX and _prctl(PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(parent: int) -> None:
    """Asks the kernel to kill this process when the thread that started it ends.

    A change of the user cancels the request, so it comes after that.
    """
    if IS_LINUX:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before the request
            os._exit(1)


def leave_network() -> bool:
    """Moves the process to an empty network, with at most one thread; as an ordinary user to its own users.

    A container without the capability, or with Docker's own filter of system calls, does not allow it.
    """
    if not IS_LINUX:
        return False
    if os.geteuid() == 0:
        return bool(_libc.unshare(CLONE_NEWNET | CLONE_NEWIPC) == 0)
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC) != 0:
        return False
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError:
        pass  # the process has no name for its user then, which nothing needs
    return True


def become(user: int, group: int, *, keep_reading: bool) -> None:
    """Changes from root to another user, without a way back.

    keep_reading : whether the process may still read files of others. Only with `only_paths` after it.
    """
    os.setgroups([])
    os.setresgid(group, group, group)
    if keep_reading:
        _prctl(PR_SET_KEEPCAPS, 1)
    os.setresuid(user, user, user)


def drop_capabilities(*kept: int) -> bool:
    """Gives up all capabilities but `kept`."""
    if not IS_LINUX:
        return False
    sets = sum(1 << capability for capability in kept)
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    low = struct.pack("=III", sets & 0xFFFFFFFF, sets & 0xFFFFFFFF, 0)
    return bool(_libc.capset(header, low + struct.pack("=III", 0, 0, 0)) == 0)


# -- Landlock: files and directories -------------------------------------------------------------------

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_REG, TRUNCATE = 1 << 8, 1 << 14
FILE_ONLY = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}  # by ABI
NETWORK_RIGHTS = 0b11  # bind and connect of TCP, from ABI 4
SCOPES = 0b11  # abstract sockets and signals, from ABI 6


def landlock_version() -> int:
    """Returns the kernel's Landlock ABI, 0 without Landlock."""
    if not IS_LINUX:
        return 0
    return max(int(_libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1)), 0)


def only_paths(readable: Iterable[Path], writable: Iterable[Path]) -> bool:
    """Leaves the process only some files and directories, and what lies in them.

    Files in `writable` can be made and written, but not removed, so that the parent sees what they occupy.
    The process can then neither trace nor (from ABI 6) signal a process outside. Requires
    `no_new_privileges`.
    """
    version = landlock_version()
    if not version:
        return False
    handled = FILE_RIGHTS[max(each for each in FILE_RIGHTS if each <= version)]
    attributes = [handled]
    if version >= 4:
        attributes.append(NETWORK_RIGHTS)
    if version >= 6:
        attributes.append(SCOPES)
    packed = struct.pack(f"={len(attributes)}Q", *attributes)
    rules = int(_libc.syscall(LANDLOCK_CREATE_RULESET, packed, ctypes.c_size_t(len(packed)), 0))
    if rules < 0:
        return False
    try:
        for path in readable:
            _allow(rules, path, (READ_FILE | READ_DIR | EXECUTE) & handled)
        for path in writable:
            _allow(rules, path, (READ_FILE | READ_DIR | WRITE_FILE | MAKE_REG | TRUNCATE) & handled)
        return bool(_libc.syscall(LANDLOCK_RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # a path that does not exist needs no rule
    try:
        if not path.is_dir():
            rights &= FILE_ONLY
        _libc.syscall(LANDLOCK_ADD_RULE, rules, 1, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


# -- seccomp: system calls -----------------------------------------------------------------------------

# Numbers on x86-64 and on ARM64; None where the call does not exist. The calls start processes and programs,
# reach other processes of the same user, open networks, or hold memory and files where no limit counts them.
REFUSED: Final[dict[str, tuple[int | None, int | None]]] = {
    "socket": (41, 198),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "open_by_handle_at": (304, 265),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}
MACHINES: Final = {"x86_64": 0, "aarch64": 1}
ARCHITECTURES: Final = (0xC000003E, 0xC00000B7)
CLONE, CLONE3, TGKILL, PRLIMIT = (56, 220), (435, 435), (234, 131), (302, 261)
OPEN, OPENAT, OPENAT2 = (2, None), (257, 56), (437, 437)
FCNTL, IOCTL = (72, 25), (16, 29)
# With these, a file sends signals: F_SETOWN, F_SETSIG, F_SETOWN_EX; FIOASYNC, FIOSETOWN, SIOCSPGRP.
SIGNALS_BY_FCNTL, SIGNALS_BY_IOCTL = (8, 10, 15), (0x5452, 0x8901, 0x8902)
X32_BIT = 0x40000000
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, ERROR, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data


def only_harmless_calls() -> bool:
    """Refuses the system calls of `REFUSED` with an error. Requires `no_new_privileges`.

    Threads stay possible, other processes do not. A signal reaches only this process, for `abort`.
    """
    machine = MACHINES.get(platform.machine())
    if not IS_LINUX or machine is None or struct.calcsize("P") != 8:
        return False
    program = _program(machine, os.getpid())
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    return _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(header))


Instruction = tuple[int, int, int, int]


def _program(machine: int, pid: int) -> list[Instruction]:
    """Returns the filter: (code, jump if true, jump if false, operand)."""
    refuse, unknown = (RETURN, 0, 0, ERROR | EPERM), (RETURN, 0, 0, ERROR | ENOSYS)
    lines: list[Instruction] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
    ]
    if machine == MACHINES["x86_64"]:
        lines += [(JUMP_AT_LEAST, 0, 1, X32_BIT), refuse]
    for numbers in REFUSED.values():
        number = numbers[machine]
        if number is not None:
            lines += [(JUMP_EQUAL, 0, 1, number), refuse]
    # The C library falls back from these two to calls whose arguments the filter can read.
    for number in (CLONE3[machine], OPENAT2[machine]):
        lines += [(JUMP_EQUAL, 0, 1, number), unknown]
    lines += _by_argument(CLONE[machine], 0, (JUMP_SET, 1, 0, CLONE_THREAD), refuse)
    lines += _by_argument(TGKILL[machine], 0, (JUMP_EQUAL, 1, 0, pid), refuse)
    lines += _by_argument(PRLIMIT[machine], 0, (JUMP_EQUAL, 1, 0, 0), refuse)
    for numbers, place in ((OPEN, 1), (OPENAT, 2)):
        number = numbers[machine]
        if number is not None:
            lines += _by_argument(number, place, (JUMP_SET, 0, 1, O_TMPFILE_BIT), refuse)
    for numbers, commands in ((FCNTL, SIGNALS_BY_FCNTL), (IOCTL, SIGNALS_BY_IOCTL)):
        tests = [each for value in commands for each in ((JUMP_EQUAL, 0, 1, value), refuse)]
        rest = [(LOAD, 0, 0, FIRST_ARGUMENT + 8), *tests, (RETURN, 0, 0, ALLOW)]
        lines += [(JUMP_EQUAL, 0, len(rest), numbers[machine]), *rest]
    return [*lines, (RETURN, 0, 0, ALLOW)]


def _by_argument(number: int, place: int, test: Instruction, refuse: Instruction) -> Sequence[Instruction]:
    """Refuses the call `number` unless `test` of the low half of an argument jumps over the refusal."""
    return [
        (JUMP_EQUAL, 0, 4, number),
        (LOAD, 0, 0, FIRST_ARGUMENT + 8 * place),
        test,
        refuse,
        (RETURN, 0, 0, ALLOW),
    ]
