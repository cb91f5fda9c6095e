"""Assignment of clients to a canary: a fixed share of them.

A client's bucket is the first 8 bytes of SHA-256 of ``<version id>:<client id>``, a number below 2**64; the
canary answers clients whose bucket is below ``share * 2**64``. A client therefore stays with the canary while
the percentage grows, also when a rollout ends and another of the same version begins. Two versions draw their
clients independently.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

BUCKETS: Final = 2**64


def bucket(version_id: int, client_id: int) -> int:
    """Returns the client's bucket: 0 to 2**64 - 1, uniformly distributed."""
    return int.from_bytes(sha256(b"%d:%d" % (version_id, client_id)).digest()[:8])


def threshold(percent: float) -> int:
    """Returns the bound below which buckets belong to the canary: 0 to 2**64 for `percent` 0 to 100."""
    return min(BUCKETS, int(percent / 100 * BUCKETS))


def is_in(version_id: int, client_id: int | None, below: int) -> bool:
    """Returns whether a canary of the version answers the client; False without a client.

    Parameters
    ----------
    below : see `threshold`.
    """
    return client_id is not None and bucket(version_id, client_id) < below
