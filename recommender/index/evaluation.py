"""Evaluation of an index: ranking metrics on held-out interactions, coverage of the catalogue, diversity,
popularity bias and latency; and the same metrics of the baseline, which recommends the most popular
movies."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
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
"""Number of recommendations per list that the metrics count."""


@dataclass(frozen=True)
class HeldOut:
    """The held-out users: their questions and their targets.

    histories : CSR float64 (u, n), the users' latest opinions. seen : CSR (u, n), movies not to recommend.
    """

    held: HoldOut
    histories: Any
    seen: Any

    @classmethod
    def of(cls, analysis: Analysis, back: int) -> HeldOut:
        """Holds out the last movie that each user liked (back = 1) or the one before it (2); see
        `hold_out`."""
        opinions, judging = analysis.opinions, analysis.settings.judging
        held = hold_out(opinions, back, judging.users, judging.seed)
        latest, seen = (
            histories(opinions, held, len(analysis), length)
            for length in (judging.history, analysis.settings.together.per_user)
        )
        return cls(held, latest, seen)

    def __len__(self) -> int:
        return len(self.held.users)

    @property
    def depth(self) -> int:
        """The length of a list in which `DEPTH` movies remain without those that its user has seen."""
        return DEPTH + int(np.diff(self.seen.indptr).max(initial=0))


def found_by(weighed: Weighed, asked: HeldOut) -> Rows:
    """Returns (u, DEPTH) the recommendations for each user by the sum of the user's opinions; then -1."""
    profiles = normalize(asked.histories @ weighed.rows.astype(np.float64))
    profiles.data = on_grid(profiles.data).astype(np.float32)
    profiles.eliminate_zeros()
    profiles.sort_indices()
    found = nearest(profiles, weighed.rows, asked.depth, wide=weighed.wide)
    return _unseen(found, asked.seen)


def most_popular(analysis: Analysis, asked: HeldOut) -> Rows:
    """Returns (u, DEPTH) the unseen movies for each user that most users liked, then the most popular
    movies."""
    opinions = analysis.opinions
    counted = opinions.movie[opinions.positive & ~asked.held.hidden]
    ranking = np.argsort(-np.bincount(counted, minlength=len(analysis)), kind="stable")
    return _unseen(np.tile(ranking[: asked.depth].astype(np.int32), (len(asked), 1)), asked.seen)


def gains(found: Rows, asked: HeldOut) -> Floats:
    """Returns (u,) the nDCG of each user with one relevant movie: 1 / log2(1 + rank), 0 if it is not
    found."""
    hits = found == asked.held.targets[:, None]
    return np.asarray((hits / np.log2(np.arange(2, DEPTH + 2))).sum(axis=1))


def error_of(found: Rows, asked: HeldOut) -> float:
    """Returns the standard error of ndcg_at_10 over the users."""
    return float(gains(found, asked).std() / np.sqrt(len(asked)))


def ranking_metrics(found: Rows, asked: HeldOut) -> dict[str, float]:
    """Returns recall_at_10 and ndcg_at_10: the share of users whose target is found, and the mean of
    `gains`."""
    gained = gains(found, asked)
    return {f"recall_at_{DEPTH}": float((gained > 0).mean()), f"ndcg_at_{DEPTH}": float(gained.mean())}


def list_metrics(neighbours: Rows, rows: Any, popularity: Floats, judging: Judging) -> dict[str, float]:
    """Returns coverage, diversity and popularity_bias of the neighbour lists of all movies.

    coverage : share of all movies that occur in some list. diversity : 1 - mean cosine of two movies of one
    list, mean over the lists. popularity_bias : mean percentile of popularity of the listed movies, minus
    0.5.

    neighbours : (n, DEPTH), -1 for no neighbour. rows : CSR (n, p). popularity : (n,) see `percentiles`.
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
    """Returns (n, DEPTH) the baseline's lists: for each movie the most popular other movies, then -1."""
    found = np.tile(np.arange(DEPTH + 1, dtype=np.int32), (min(n, DEPTH + 1) + 1, 1))
    found = np.array([np.delete(row, min(at, DEPTH)) for at, row in enumerate(found)], np.int32)
    found[found >= n] = -1
    return found[np.minimum(np.arange(n), len(found) - 1)]


def percentiles(popularity: npt.NDArray[np.float32]) -> Floats:
    """Returns (n,) the share of less popular movies plus half the share of equally popular movies."""
    return np.asarray((rankdata(popularity) - 0.5) / max(1, len(popularity)))


def latency_ms(engine: IndexEngine, judging: Judging) -> float:
    """Returns the median time of an answer to a movie id, with reasons, in milliseconds."""
    ids = np.array(engine.ids())
    drawn = np.random.default_rng(judging.seed).choice(ids, min(judging.calls, len(ids)), replace=False)
    taken = []
    for movie_id in drawn.tolist():
        began = time.perf_counter()
        engine.recommend(Question((Seed(movie_id=movie_id),)))
        taken.append(time.perf_counter() - began)
    return float(np.median(taken) * 1_000)


def _unseen(found: Rows, seen: Any) -> Rows:
    """Returns (u, DEPTH) the first movies of each line that the user has not seen."""
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
