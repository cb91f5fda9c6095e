"""What a user likes, by what is on record of the user."""

from __future__ import annotations

from dataclasses import dataclass
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
    """weights : movie -> what it says, -1 to 1, the newest first. seen : the movies on record, see `SEEN`."""

    weights: dict[int, float]
    seen: frozenset[int]


def of(user: str) -> Taste:
    """The taste of a user; empty for one who is not known.

    Of several interactions with a movie the strongest counts, but the last word on liking it overrules.
    """
    rows = Interaction.objects.filter(user=user).order_by("-at", "-id")
    found = list(rows.values_list("movie_id", "kind")[:SEEN])
    kinds: dict[int, list[str]] = {}
    for movie_id, kind in found[:REMEMBERED]:
        kinds.setdefault(movie_id, []).append(kind)
    weights = {movie_id: _weight(given) for movie_id, given in list(kinds.items())[:SEEDS]}
    return Taste(weights, frozenset(movie_id for movie_id, _ in found))


def _weight(kinds: list[str]) -> float:
    """Of one movie's interactions, the newest first."""
    said = next((kind for kind in kinds if kind in (Interaction.Kind.LIKED, Interaction.Kind.DISLIKED)), None)
    return WEIGHTS[said] if said is not None else max(WEIGHTS[kind] for kind in kinds)
