"""Which clients a canary answers: a share of them, always the same ones.

A client's bucket is the first 8 bytes of SHA-256 of ``<version id>:<client id>``, a number below 2**64; who
is below ``share * 2**64`` is in. So who is in stays in while the percentage only grows, also when it is
raised by ending one rollout and beginning another of the same version; and two versions draw their clients
independently of each other.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

BUCKETS: Final = 2**64


def bucket(version_id: int, client_id: int) -> int:
    """0 to 2**64 - 1, uniformly spread."""
    return int.from_bytes(sha256(b"%d:%d" % (version_id, client_id)).digest()[:8])


def threshold(percent: float) -> int:
    """Buckets below it are in: 0 to 2**64, growing with `percent` (0 to 100)."""
    return min(BUCKETS, int(percent / 100 * BUCKETS))


def is_in(version_id: int, client_id: int | None, below: int) -> bool:
    """Whether the client is among those a canary of the version answers; nobody in particular never is.

    Parameters
    ----------
    below : see `threshold`.
    """
    return client_id is not None and bucket(version_id, client_id) < below
