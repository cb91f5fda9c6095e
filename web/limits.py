"""Limits of one client in a web process: seconds and bytes. This module imports no Django."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 2**15
"""Bytes of a request line and its headers."""
INLINE_BYTES: Final = 2**16
"""Bytes of a body that the event loop answers. A thread decodes larger bodies, which would block the loop."""
INLINE_CSV_BYTES: Final = 2**12
"""Bytes of a CSV body that the event loop answers; CSV costs ten times as much as JSON."""
COLLECTED_BYTES: Final = 2**26
"""Bytes of large bodies that a process collects in memory at the same time."""
SPOOLED_BYTES: Final = 2**31
"""Bytes of large bodies that a process collects in temporary files at the same time."""
DISCARDED_BYTES: Final = 2**26
"""Bytes of a body that the server reads after it has refused the request."""
UNREAD_BYTES: Final = 2**21
"""Bytes of a streamed answer that wait in memory for its client before its thread waits."""
ALL_UNREAD_BYTES: Final = 2**26
"""Bytes of answers that wait in memory for all clients of a process."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a client may take, from the settings (BODY_SILENCE_SECONDS, HEAD_SECONDS, …).

    Attributes
    ----------
    silence : seconds without a byte. head, body, answer : seconds in all.
    rate : number of bytes that extends the limits of body and answer by a second.
    """

    silence: float = 10.0
    head: float = 10.0
    body: float = 60.0
    answer: float = 60.0
    rate: float = 2.0**14
