"""The user profile: weights of movies, from the user's interactions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Final

from recommender.declaration import WEIGHTS
from recommender.models import Interaction

SEEN: Final = 10_000
"""Number of a user's newest interactions whose movies count as seen; older movies may be recommended
again."""
REMEMBERED: Final = 500
"""Number of the newest interactions that enter the weights."""
SEEDS: Final = 100
"""Number of the newest movies that a recommendation starts from."""


@dataclass(frozen=True, slots=True)
class UserProfile:
    """weights : movie -> weight, -1 to 1 and not 0, newest first. seen : movies of the interactions, see
    `SEEN`."""

    weights: dict[int, float]
    seen: frozenset[int]


def of(user: str) -> UserProfile:
    """Returns the profile of a user; an empty profile for an unknown user.

    The weights of several interactions with a movie add up, bounded to -1 and 1, as in an index's build.
    """
    rows = Interaction.objects.filter(user=user).order_by("-at", "-id")
    interactions = list(rows.values_list("movie_id", "kind")[:SEEN])
    sums: dict[int, float] = {}
    for movie_id, kind in interactions[:REMEMBERED]:
        sums[movie_id] = sums.get(movie_id, 0.0) + WEIGHTS[kind]
    weights = {movie_id: max(-1.0, min(1.0, total)) for movie_id, total in sums.items() if total}
    newest = dict(islice(weights.items(), SEEDS))
    return UserProfile(newest, frozenset(movie_id for movie_id, _ in interactions))
