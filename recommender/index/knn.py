"""The exact k nearest rows of every row, in memory linear in the non-zeros: never an n x n matrix.

scipy multiplies blocks of rows, and the best are picked. Beyond `SMALL` rows `recommender.index.topk_kernel`
searches instead, where numba is installed: it is several times as fast. Both give the same rows in the same
order: scores are exact (see `sparse_matrix`), and ties are broken by the order of the rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.util import find_spec
from typing import Any, Final

import joblib
import numpy as np
import numpy.typing as npt

from recommender.index.ranking import best
from recommender.index.sparse_matrix import Matrix

Rows = npt.NDArray[np.int32]
Report = Callable[[float], None]
"""Is told the share that is done; what it raises ends the search."""

log = logging.getLogger(__name__)

SMALL: Final = 20_000
"""From about so many rows on the kernel's compilation is earned back."""

MANY: Final = 200_000
"""From so many rows on the log recommends numba, because scipy takes more than some minutes."""

BATCH: Final = 2_048
"""Rows a thread searches before anyone can interrupt."""

_DENSE: Final = 4_000_000  # scores held at once where scipy multiplies: 32 MB


def nearest(
    queries: Any,
    documents: Any,
    k: int,
    *,
    own: npt.NDArray[np.int64] | None = None,
    wide: tuple[int, int] = (0, 0),
    threads: int | None = None,
    report: Report = lambda share: None,
    small: int = SMALL,
) -> Rows:
    """(m, k) the rows of the k documents of the largest score above 0, best first, then -1.

    Parameters
    ----------
    queries, documents : CSR float32 (m, p) and (n, p), sorted indices, values on the grid, rows no longer
        than 1.
    own : (m,) a row that is no answer to the query, usually itself; -1: none.
    wide : columns [begin, end) of the few terms that very many documents have; queries that agree in them
        share their cost.
    threads : as many as this process has cores, where none are given.
    """
    own = np.full(queries.shape[0], -1) if own is None else own
    rows = documents.shape[0]
    if rows > small and find_spec("numba") is None:
        if rows > MANY:
            log.warning("%d movies take long without numba: install requirements-numba.txt", rows)
        small = rows
    if rows <= small:
        return _multiplied(queries, documents, k, own, report)
    return _searched(queries, documents, k, own, wide, threads or joblib.cpu_count(), report)


def two_ways(rows: Any) -> Matrix:
    """A CSR float32 matrix with its inverted lists."""
    lists = rows.tocsc()
    return Matrix(
        rows.indptr.astype(np.int64),
        rows.indices.astype(np.int32, copy=False),
        rows.data,
        lists.indptr.astype(np.int64),
        lists.indices.astype(np.int32, copy=False),
        lists.data,
    )


def _multiplied(queries: Any, documents: Any, k: int, own: npt.NDArray[np.int64], report: Report) -> Rows:
    found = np.full((queries.shape[0], k), -1, np.int32)
    lists = documents.T.astype(np.float64).tocsr()
    step = max(1, _DENSE // max(1, documents.shape[0]))
    for start in range(0, queries.shape[0], step):
        scores = (queries[start : start + step].astype(np.float64) @ lists).toarray()
        for place, row in enumerate(scores, start):
            if own[place] >= 0:
                row[own[place]] = 0.0
            chosen = best(row, k)
            found[place, : len(chosen)] = chosen
        report(min(1.0, (start + step) / queries.shape[0]))
    return found


def _searched(
    queries: Any,
    documents: Any,
    k: int,
    own: npt.NDArray[np.int64],
    wide: tuple[int, int],
    threads: int,
    report: Report,
) -> Rows:
    from recommender.index import topk_kernel

    collection = topk_kernel.Collection.of(two_ways(documents), wide)
    asked = topk_kernel.Queries(
        queries.indptr.astype(np.int64), queries.indices.astype(np.int32, copy=False), queries.data, own
    )
    found = np.full((queries.shape[0], k), -1, np.int32)
    order = topk_kernel.alike_together(asked, wide)
    with ThreadPoolExecutor(threads, "neighbours") as pool:
        work = [
            pool.submit(topk_kernel.search, collection, asked, order[start : start + BATCH], found)
            for start in range(0, len(order), BATCH)
        ]
        try:
            for done, each in enumerate(as_completed(work), 1):
                each.result()
                report(done / len(work))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found
