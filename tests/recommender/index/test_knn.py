"""Exact k nearest rows: scipy, for few rows, and the compiled kernel, for many rows, find the same rows."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.preprocessing import normalize

from recommender.index import topk_kernel
from recommender.index.knn import nearest, two_ways
from recommender.index.sparse_matrix import on_grid


def rows_of(seed: int, n: int, p: int, filled: float, levels: int) -> Any:
    """Returns CSR (n, p) as in an index. Few levels of values make many ties; some rows are empty."""
    rng = np.random.default_rng(seed)
    dense = rng.integers(1, levels + 1, (n, p)) * (rng.random((n, p)) < filled)
    matrix = normalize(sparse.csr_matrix(dense.astype(np.float64)))
    matrix.data = on_grid(matrix.data)
    return matrix.astype(np.float32)


def by_sorting(queries: Any, documents: Any, k: int, own: Any) -> Any:
    """Sorts all scores in float64."""
    neighbours = np.full((queries.shape[0], k), -1)
    dense = queries.toarray().astype(np.float64) @ documents.toarray().astype(np.float64).T
    for row, scores in enumerate(dense):
        scores[own[row]] = 0
        ranked = sorted((-score, place) for place, score in enumerate(scores) if score > 0)[:k]
        neighbours[row, : len(ranked)] = [place for _, place in ranked]
    return neighbours


def compiled(rows: Any, k: int, wide: tuple[int, int], block: int) -> tuple[Any, Any]:
    """Returns (the neighbours, the rows that were searched in float64)."""
    both = two_ways(rows)
    queries = topk_kernel.Queries(both.starts, both.terms, both.values, np.arange(len(both)))
    neighbours = np.full((len(both), k), -1, np.int32)
    order = topk_kernel.alike_together(queries, wide)
    return neighbours, topk_kernel.search(
        topk_kernel.Collection.of(both, wide, block), queries, order, neighbours
    )


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 12), st.sampled_from((1, 3, 50)))
@settings(max_examples=60)
def test_scipy_and_the_kernel_find_the_same_rows_as_sorting_all_scores(
    seed: int, n: int, k: int, levels: int
) -> None:
    rows, own = rows_of(seed, n, 17, 0.2, levels), np.arange(n)
    expected = by_sorting(rows, rows, k, own)
    assert (nearest(rows, rows, k, own=own) == expected).all()
    for wide, block in (((0, 0), 64), ((2, 9), 16)):
        assert (compiled(rows, k, wide, block)[0] == expected).all()


def test_more_candidates_than_room_lose_no_neighbour() -> None:
    rows = rows_of(1, 3_000, 40, 0.3, 50)
    neighbours, unproven = compiled(rows, 10, (0, 5), 1_024)
    few = np.arange(0, 3_000, 100)
    assert (neighbours[few] == by_sorting(rows[few], rows, 10, few)).all()
    assert not len(unproven)


def test_the_first_of_very_many_equal_rows_are_returned() -> None:
    """There are more equal rows than room, so the exact search repeats the query; a few better rows lie among
    them."""
    alike = sparse.vstack([rows_of(1, 1, 17, 0.5, 3)] * 700, format="csr")
    rows = sparse.vstack([alike[:300], rows_of(2, 40, 17, 0.4, 3), alike[300:]], format="csr")
    neighbours, unproven = compiled(rows, 5, (0, 4), 64)
    assert set(range(300)) <= set(unproven)
    few = np.array([0, 3, *range(295, 345), 739])
    assert (neighbours[few] == by_sorting(rows[few], rows, 5, few)).all()
    assert neighbours[3].tolist() == [0, 1, 2, 4, 5]


def test_without_numba_scipy_finds_the_same_rows_at_any_size(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = rows_of(3, 400, 17, 0.3, 3)
    expected = nearest(rows, rows, 6, small=0)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr("recommender.index.topk_kernel.search", None)
    monkeypatch.setattr("recommender.index.knn.MANY", 300)
    assert (nearest(rows, rows, 6, small=0) == expected).all()
    assert "requirements-numba.txt" in caplog.text


def test_threads_and_batches_do_not_affect_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recommender.index.knn.BATCH", 50)
    rows, own, reports = rows_of(2, 300, 30, 0.2, 9), np.arange(300), []
    searched = nearest(rows, rows, 7, own=own, wide=(0, 4), threads=2, report=reports.append, small=0)
    assert (searched == nearest(rows, rows, 7, own=own)).all()
    assert reports == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])


@pytest.mark.parametrize("small", [0, 1_000])
def test_an_exception_in_the_report_ends_the_search(small: int) -> None:
    def stop(share: float) -> None:
        raise KeyboardInterrupt

    rows = rows_of(2, 20, 10, 0.5, 9)
    with pytest.raises(KeyboardInterrupt):
        nearest(rows, rows, 3, report=stop, small=small)


def test_a_query_of_disliked_terms_finds_only_scores_above_0() -> None:
    rows = rows_of(4, 200, 15, 0.4, 50)
    queries = rows[:20].copy()
    queries.data[::2] *= -1
    own = np.full(20, -1)
    for small in (0, 1_000):
        neighbours = nearest(queries, rows, 6, own=own, small=small)
        scores = np.take_along_axis((queries @ rows.T).toarray(), neighbours.astype(np.int64), axis=1)
        assert (scores[neighbours >= 0] > 0).all()
    assert (nearest(queries, rows, 6, small=0) == nearest(queries, rows, 6)).all()


def test_the_kernel_compiles_without_a_writable_cache() -> None:
    code = (
        "from recommender.index.topk_kernel import _any_above; import numpy as np;"
        "print(_any_above(np.ones(3, np.float32), np.zeros(3, np.float32), np.float32(0.5)))"
    )
    nowhere = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator", "NUMBA_CACHE_DIR": "/dev/null/no"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=nowhere, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
