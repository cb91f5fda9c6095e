"""The policy that decides whether and when a request is sent again."""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from vigia_ml.client.errors import ApiError, NotReachable, RateLimited, Unavailable
from vigia_ml.errors import VigiaError

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 15.0
LONGEST_RETRY_AFTER: Final = 120.0
"""Longest `Retry-After`, in seconds, that the client waits for; a longer one is left to the caller."""
NEEDS_AN_OPERATOR: Final = frozenset({"no_active_version", "artifact_unusable", "store_unavailable"})
"""Codes of 503 that no short wait changes."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff: the pause doubles with each retry, and half of it is random, so that clients of a
    restarted service do not return at the same instant. `Retry-After` is a lower bound.

    retries : number of repetitions after the first attempt.
    """

    retries: int = 5

    def pause(self, attempt: int, error: VigiaError) -> float | None:
        """Returns the seconds until the next attempt, or None if the error is final.

        Parameters
        ----------
        attempt : number of attempts before the one that failed.
        """
        if attempt >= self.retries or not _is_passing(error):
            return None
        usual: float = min(FIRST_PAUSE * 2.0**attempt, LONGEST_PAUSE) * (0.5 + random.random() / 2)  # noqa: S311
        wanted = error.retry_after if isinstance(error, ApiError) else None
        if wanted is None:
            return usual
        if wanted > LONGEST_RETRY_AFTER:
            return None
        # Clients that got the same Retry-After come back one after the other.
        return wanted + min(usual, 1.0) * random.random()  # noqa: S311


def _is_passing(error: VigiaError) -> bool:
    if isinstance(error, (NotReachable, RateLimited)):
        return True
    return isinstance(error, Unavailable) and error.code not in NEEDS_AN_OPERATOR


def read_retry_after(value: str | None) -> float | None:
    """Returns the seconds of a Retry-After header (seconds or an HTTP date), or None."""
    if not value:
        return None
    if value.strip().isdecimal() and len(value) < 10:
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return max(0.0, (moment - dt.datetime.now(dt.UTC)).total_seconds())
