"""Co-occurrence: users' opinions of movies, the field ``together`` of them, and their hold-out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recommender.index.catalogue_snapshot import Interactions
from recommender.index.config import Together

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Opinions:
    """Opinions, one per pair of user and movie, sorted by user, then time, then row.

    movie : (m,) int64, row of the index. user : (m,) int64, 0 to `users` - 1. weight : (m,) float64, -1 to 1
    and not 0: the sum of the weights of the user's interactions with the movie. at : (m,) int64, time of the
    last of them, microseconds since 1970.
    """

    movie: Integers
    user: Integers
    weight: npt.NDArray[np.float64]
    at: Integers
    users: int

    def __len__(self) -> int:
        return len(self.movie)

    @property
    def positive(self) -> Mask:
        return self.weight > 0

    @classmethod
    def of(cls, interactions: Interactions, row_of: Integers) -> Opinions:
        """Returns the opinions of interactions. row_of : (n,) row of each movie of the catalogue."""
        movie = row_of[interactions.movie]
        known, user = np.unique(interactions.user, return_inverse=True)
        order = np.lexsort((movie, user))
        movie, user = movie[order], user[order]
        is_first = np.ones(len(movie), np.bool_)
        is_first[1:] = (movie[1:] != movie[:-1]) | (user[1:] != user[:-1])
        firsts = np.flatnonzero(is_first)
        if not len(firsts):
            return cls(movie, user, np.zeros(0), movie, 0)
        weight = np.clip(np.add.reduceat(interactions.weight[order], firsts), -1.0, 1.0)
        at = np.maximum.reduceat(interactions.at[order], firsts)
        movie, user = movie[firsts], user[firsts]
        order = np.lexsort((movie, at, user))
        order = order[np.abs(weight[order]) > 1e-6]
        return cls(movie[order], user[order], weight[order], at[order], len(known))


@dataclass(frozen=True, slots=True)
class HoldOut:
    """A hold-out: for each of some users one liked movie, the target, which the user's earlier opinions must
    find.

    users : (u,) ascending. targets : (u,) rows. hidden : (m,) mask of the opinions that are targets or follow
    them. before : (m,) mask of the users' opinions before the targets.
    """

    users: Integers
    targets: Integers
    hidden: Mask
    before: Mask


def hold_out(opinions: Opinions, back: int, most: int, seed: int) -> HoldOut:
    """Holds out the last (`back` = 1) or the last but one (2) movie that each user liked.

    It skips users who liked no movie before the target and draws at most `most` of the others.
    """
    liked = np.flatnonzero(opinions.positive)
    counts = np.bincount(opinions.user[liked], minlength=opinions.users)
    eligible = np.flatnonzero(counts > back)
    if len(eligible) > most:
        eligible = np.sort(np.random.default_rng(seed).choice(eligible, most, replace=False))
    ends = np.cumsum(counts)[eligible]
    places = liked[ends - back]
    limit = np.full(opinions.users, len(opinions), np.int64)
    limit[eligible] = places
    is_after = np.arange(len(opinions)) >= limit[opinions.user]
    is_theirs = np.isin(opinions.user, eligible)
    return HoldOut(eligible, opinions.movie[places], is_after, is_theirs & ~is_after)


def liked(opinions: Opinions, movies: int, settings: Together, hidden: Mask | None = None) -> Any:
    """Returns CSR float64 (movies, users): the weight of each user's liking, of the latest opinions only."""
    taken = np.flatnonzero(opinions.positive if hidden is None else opinions.positive & ~hidden)
    taken = taken[_from_the_end(opinions.user[taken]) < settings.per_user]
    taken = taken[np.lexsort((opinions.user[taken], opinions.at[taken], opinions.movie[taken]))]
    taken = taken[_from_the_end(opinions.movie[taken]) < settings.per_movie]
    return sparse.csr_matrix(
        (opinions.weight[taken], (opinions.movie[taken], opinions.user[taken])), (movies, opinions.users)
    )


def histories(opinions: Opinions, held: HoldOut, movies: int, length: int) -> Any:
    """Returns CSR float64 (u, movies): each held-out user's last `length` opinions before the target."""
    taken = np.flatnonzero(held.before)
    taken = taken[_from_the_end(opinions.user[taken]) < length]
    lines = np.searchsorted(held.users, opinions.user[taken])
    return sparse.csr_matrix(
        (opinions.weight[taken], (lines, opinions.movie[taken])), (len(held.users), movies)
    )


def _from_the_end(groups: Integers) -> Integers:
    """Returns for each of sorted numbers how many equal numbers follow it."""
    ends = np.searchsorted(groups, groups, side="right")
    return ends - 1 - np.arange(len(groups))
