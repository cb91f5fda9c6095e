"""How good an index is: whether it finds what users liked next, how much of the catalogue it shows, how alike
and how popular that is, how fast it comes. And the same of always recommending what is most popular."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.preprocessing import normalize

from recommender.index.co_occurrence import HoldOut, histories, hold_out
from recommender.index.config import Judging
from recommender.index.engine import IndexEngine
from recommender.index.feature_matrix import Analysis, Weighed
from recommender.index.knn import nearest
from recommender.index.query import Question, Seed
from recommender.index.sparse_matrix import Floats, on_grid

Rows = npt.NDArray[np.int32]

DEPTH: Final = 10
"""Recommendations that are judged."""


@dataclass(frozen=True)
class HeldOut:
    """What some users are asked with, and what ought to be found.

    histories : CSR float64 (u, n), their latest opinions. seen : CSR (u, n), what must not be recommended.
    """

    held: HoldOut
    histories: Any
    seen: Any

    @classmethod
    def of(cls, analysis: Analysis, back: int) -> HeldOut:
        """back : 1, the last movie that each user liked, or 2, the one before it (see `hold_out`)."""
        opinions, judging = analysis.opinions, analysis.settings.judging
        held = hold_out(opinions, back, judging.users, judging.seed)
        latest, seen = (
            histories(opinions, held, len(analysis), length)
            for length in (judging.history, analysis.settings.together.per_user)
        )
        return cls(held, latest, seen)

    def __len__(self) -> int:
        return len(self.held.users)


def found_by(weighed: Weighed, asked: HeldOut, threads: int | None = None) -> Rows:
    """(u, DEPTH) what is recommended to each user by the sum of what they thought of others; -1 behind it."""
    profiles = normalize(asked.histories @ weighed.rows.astype(np.float64))
    profiles.data = on_grid(profiles.data).astype(np.float32)
    profiles.eliminate_zeros()
    profiles.sort_indices()
    most = int(np.diff(asked.seen.indptr).max(initial=0))
    found = nearest(
        profiles.astype(np.float32), weighed.rows, DEPTH + most, wide=weighed.wide, threads=threads
    )
    return _unseen(found, asked.seen)


def most_popular(analysis: Analysis, asked: HeldOut) -> Rows:
    """(u, DEPTH) to each user what most users liked, and then what is most popular, that is not seen yet."""
    opinions = analysis.opinions
    counted = opinions.movie[opinions.positive & ~asked.held.hidden]
    ranking = np.argsort(-np.bincount(counted, minlength=len(analysis)), kind="stable")
    most = int(np.diff(asked.seen.indptr).max(initial=0))
    return _unseen(np.tile(ranking[: DEPTH + most].astype(np.int32), (len(asked), 1)), asked.seen)


def gains(found: Rows, asked: HeldOut) -> Floats:
    """(u,) nDCG of each user, with one relevant movie: 1 / log2(1 + its rank), 0 where it is not found."""
    hits = found == asked.held.targets[:, None]
    return np.asarray((hits / np.log2(np.arange(2, DEPTH + 2))).sum(axis=1))


def error_of(found: Rows, asked: HeldOut) -> float:
    """Standard error of ndcg_at_10, over the users."""
    return float(gains(found, asked).std() / np.sqrt(len(asked)))


def ranking_metrics(found: Rows, asked: HeldOut) -> dict[str, float]:
    """recall_at_10 and ndcg_at_10: the means over the users of whether the movie is found, and of `gains`."""
    gained = gains(found, asked)
    return {f"recall_at_{DEPTH}": float((gained > 0).mean()), f"ndcg_at_{DEPTH}": float(gained.mean())}


def list_metrics(neighbours: Rows, rows: Any, popularity: Floats, judging: Judging) -> dict[str, float]:
    """coverage, diversity and popularity_bias of what is recommended beside each movie.

    coverage : the share of all movies that stand in some list. diversity : 1 - mean cosine of two movies of
    one list, mean over the lists. popularity_bias : mean percentile of popularity of all that stands in a
    list, minus 0.5.

    Parameters
    ----------
    neighbours : (n, DEPTH), -1 where there is none. rows : CSR (n, p). popularity : (n,) see `percentiles`.
    """
    listed = neighbours[neighbours >= 0]
    if not len(listed):
        return {"coverage": 0.0, "diversity": 0.0, "popularity_bias": 0.0}
    lists = neighbours[(neighbours >= 0).sum(axis=1) > 1]
    if len(lists) > judging.seeds:
        drawn = np.random.default_rng(judging.seed).choice(len(lists), judging.seeds, replace=False)
        lists = lists[drawn]
    spread = [_diversity(each[each >= 0], rows) for each in lists]
    return {
        "coverage": len(np.unique(listed)) / len(neighbours),
        "diversity": float(np.mean(spread)) if spread else 0.0,
        "popularity_bias": float(popularity[listed].mean() - 0.5),
    }


def popular_lists(n: int) -> Rows:
    """(n, DEPTH) the same for every movie: the most popular ones but itself, -1 where there are no more."""
    found = np.tile(np.arange(DEPTH + 1, dtype=np.int32), (min(n, DEPTH + 1) + 1, 1))
    found = np.array([np.delete(row, min(at, DEPTH)) for at, row in enumerate(found)], np.int32)
    found[found >= n] = -1
    return found[np.minimum(np.arange(n), len(found) - 1)]


def percentiles(popularity: npt.NDArray[np.float32]) -> Floats:
    """(n,) the share of movies that are less popular, half of those that are as popular counted in."""
    ordered = np.sort(popularity)
    below, upto = (np.searchsorted(ordered, popularity, side=side) for side in ("left", "right"))
    return np.asarray((below + upto) / (2 * max(1, len(popularity))))


def latency_ms(engine: IndexEngine, judging: Judging) -> float:
    """Median time of an answer by movie id with its reasons, in milliseconds."""
    ids = np.array(engine.ids())
    drawn = np.random.default_rng(judging.seed).choice(ids, min(judging.calls, len(ids)), replace=False)
    taken = []
    for movie_id in drawn.tolist():
        began = time.perf_counter()
        engine.recommend(Question((Seed(movie_id=movie_id),)))
        taken.append(time.perf_counter() - began)
    return float(np.median(taken) * 1_000)


def _unseen(found: Rows, seen: Any) -> Rows:
    """(u, DEPTH) the first of each line that the user has not seen."""
    kept = np.full((len(found), DEPTH), -1, np.int32)
    for line, row in enumerate(found):
        its = seen.indices[seen.indptr[line] : seen.indptr[line + 1]]
        first = row[(row >= 0) & ~np.isin(row, its)][:DEPTH]
        kept[line, : len(first)] = first
    return kept


def _diversity(listed: Rows, rows: Any) -> float:
    its = rows[listed].astype(np.float64)
    cosines = (its @ its.T).toarray()
    count = len(listed)
    return float(1 - (cosines.sum() - np.trace(cosines)) / (count * (count - 1)))
