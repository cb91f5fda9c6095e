"""What a user likes, by what is on record of the user."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Final

from recommender.declaration import WEIGHTS
from recommender.models import Interaction

SEEN: Final = 10_000
"""The newest interactions of a user; movies of older ones may be recommended again."""
REMEMBERED: Final = 500
"""The newest of them; older ones no longer say what the user likes."""
SEEDS: Final = 100
"""Movies that an answer starts from, the newest."""


@dataclass(frozen=True, slots=True)
class Taste:
    """weights : movie -> what it says, -1 to 1 and not 0, the newest first. seen : the movies on record, see
    `SEEN`."""

    weights: dict[int, float]
    seen: frozenset[int]


def of(user: str) -> Taste:
    """The taste of a user; empty for one who is not known.

    Several interactions with a movie add up, to at most 1 and at least -1, as they do when an index is built.
    """
    rows = Interaction.objects.filter(user=user).order_by("-at", "-id")
    found = list(rows.values_list("movie_id", "kind")[:SEEN])
    sums: dict[int, float] = {}
    for movie_id, kind in found[:REMEMBERED]:
        sums[movie_id] = sums.get(movie_id, 0.0) + WEIGHTS[kind]
    weights = {movie_id: max(-1.0, min(1.0, total)) for movie_id, total in sums.items() if total}
    newest = dict(islice(weights.items(), SEEDS))
    return Taste(newest, frozenset(movie_id for movie_id, _ in found))
