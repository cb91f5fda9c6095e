"""Exact k nearest rows of every row, in memory linear in the non-zeros: never an n x n matrix.

scipy multiplies blocks of rows, and the best rows are selected. Beyond `SMALL` rows and with numba installed,
`recommender.index.topk_kernel` searches instead: it is several times as fast. Both give the same rows in the
same order: scores are exact (see `sparse_matrix`), and the order of the rows breaks ties.
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
"""Called with the finished share of the search; an exception that it raises ends the search."""

log = logging.getLogger(__name__)

SMALL: Final = 20_000
"""Number of rows from which the kernel saves more time than its compilation takes."""

MANY: Final = 200_000
"""Number of rows from which scipy takes more than some minutes, so the log recommends numba."""

BATCH: Final = 2_048
"""Rows that a thread searches between two chances to interrupt it."""

_DENSE: Final = 4_000_000  # scores that one multiplication holds in memory: 32 MB


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
    """Returns (m, k) the rows of the k documents with the largest scores above 0, best first, then -1.

    Parameters
    ----------
    queries, documents : CSR float32 (m, p) and (n, p), sorted indices, values on the grid, rows no longer
        than 1.
    own : (m,) row to exclude from the answer to a query, usually itself; -1: none.
    wide : columns [begin, end) of the few terms that very many documents have; queries with the same values
        in them share their cost.
    threads : number of threads; default: the number of cores of this process.
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
    """Returns a CSR float32 matrix with its inverted lists."""
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
