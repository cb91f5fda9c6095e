"""Limits on what one client may take of a web process: seconds, bytes, connections. No Django here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 2**15
"""Bytes of a request line and its headers."""
INLINE_BYTES: Final = 2**16
"""Bytes of a body that the event loop answers. A thread decodes larger ones: they keep others waiting."""
INLINE_CSV_BYTES: Final = 2**12
"""The same for CSV, which costs ten times as much."""
COLLECTED_BYTES: Final = 2**26
"""Bytes of large bodies that a process collects in memory at the same time."""
SPOOLED_BYTES: Final = 2**31
"""Bytes of large bodies that a process collects in temporary files at the same time."""
DISCARDED_BYTES: Final = 2**26
"""Bytes of a body that the server reads after it has refused the request."""
UNREAD_BYTES: Final = 2**21
"""Bytes of a streamed answer that wait in memory for its client before a thread waits."""
ALL_UNREAD_BYTES: Final = 2**26
"""Bytes of answers that wait in memory for all clients of a process."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a client may take; the settings of the same names.

    Attributes
    ----------
    silence : without a byte. head, body, answer : for the whole.
    rate : bytes that extend the limits of body and answer by a second.
    """

    silence: float = 10.0
    head: float = 10.0
    body: float = 60.0
    answer: float = 60.0
    rate: float = 2.0**14
