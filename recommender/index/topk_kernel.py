"""Top-k search over inverted lists, compiled by numba: exact, deterministic, without the interpreter's lock.

The search adds a query's terms to the scores of one block of documents at a time, small enough for the
processor's cache. The lists hold a document's place in its block and its value, 16 bits each, so that the
lists of a block fit the cache too. A field of few terms that very many documents have (genres) is not added
list by list: it lies in dense columns, which are summed once for all queries with the same values in it, and
the queries are sorted by these values.

Scores are therefore approximate, with a known bound of the error. The search keeps all candidates that may be
among the k best and scores them again in float64, where sums are exact (`sparse_matrix`). A query with too
many candidates (some hundreds of equal scores) is searched again in float64 throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

from recommender.index.packed_arrays import Array
from recommender.index.ranking import best
from recommender.index.sparse_matrix import Matrix, Vector

BLOCK: Final = 65_536
"""Documents of one block, at most 65,536: their scores and the sum of the dense columns take 512 KB."""

CHUNK: Final = 64
"""Documents that one test checks for a score above the bar."""

ROOM: Final = 512
"""Candidates beyond k that are collected before those that cannot be among the k best are dropped."""

FEW: Final = 60
"""Most candidates beyond k that are carried from one block to the next; most queries end with fewer."""

TILE: Final = 256
"""Queries that are scored on a block before the next block."""

STEPS: Final = 65_535.0
"""A value in 16 bits is a multiple of 1 / `STEPS`."""


def compiled(function: Callable[..., Any]) -> Any:
    """Returns the function compiled at its first call and cached on disk; without the cache if no directory
    is writable, as in a container with read-only code."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)


@dataclass(frozen=True, slots=True)
class Queries:
    """The m queries in CSR. own : (m,) int64, document to exclude from a query's answer, or -1."""

    starts: Array
    terms: Array
    values: Array
    own: Array

    def vector(self, query: int) -> Vector:
        begin, end = self.starts[query : query + 2].tolist()
        return dict(zip(self.terms[begin:end].tolist(), self.values[begin:end].tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Collection:
    """The documents (n, p) in the layout of the search.

    Parameters
    ----------
    rows : both layouts. wide : columns [begin, end) that are dense. block : documents in a block.
    entries : (nnz,) uint32 in the order of the lists, the place in the block plus 65,536 * the value in
    steps. cuts : (p, blocks + 1) int64, begin of each block's entries in the term's list. columns : (wide
    terms, n) float32.
    """

    rows: Matrix
    wide: tuple[int, int]
    block: int
    entries: Array
    cuts: Array
    columns: Array

    @classmethod
    def of(cls, rows: Matrix, wide: tuple[int, int], block: int = BLOCK) -> Collection:
        entries = np.maximum(np.rint(rows.list_values * np.float32(STEPS)), 1.0).astype(np.uint32)
        entries <<= np.uint32(16)
        entries |= (rows.list_rows % block).astype(np.uint32)
        columns = np.zeros((wide[1] - wide[0], len(rows)), np.float32)
        for place, term in enumerate(range(*wide)):
            begin, end = rows.list_starts[term : term + 2]
            columns[place, rows.list_rows[begin:end]] = rows.list_values[begin:end]
        return cls(rows, wide, block, entries, _cuts(rows, block), columns)


def _cuts(rows: Matrix, block: int) -> Array:
    """Returns (p, blocks + 1) the begin of each block's entries in each list."""
    p, blocks = len(rows.list_starts) - 1, -(-len(rows) // block)
    cuts = np.zeros((p, blocks + 1), np.int64)
    for start in range(0, p, 65_536):  # in pieces, to save memory
        stop = min(p, start + 65_536)
        begin, end = rows.list_starts[start], rows.list_starts[stop]
        lists = np.repeat(np.arange(stop - start), np.diff(rows.list_starts[start : stop + 1]))
        places = lists * blocks + rows.list_rows[begin:end] // block
        counts = np.bincount(places, minlength=(stop - start) * blocks).reshape(-1, blocks)
        np.cumsum(counts, axis=1, out=cuts[start:stop, 1:])
    return cuts + rows.list_starts[:-1, None]


def alike_together(queries: Queries, wide: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Returns an order of the queries in which queries with the same wide terms are adjacent."""
    is_wide = (queries.terms >= wide[0]) & (queries.terms < wide[1])
    before = np.concatenate(([0], np.cumsum(is_wide)))
    bits = queries.values[is_wide].astype(np.float32).view(np.uint32).astype(np.uint64)
    mixed = (bits << np.uint64(16) ^ queries.terms[is_wide].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    total = np.concatenate(([np.uint64(0)], np.cumsum(mixed ^ (mixed >> np.uint64(29)), dtype=np.uint64)))
    key = total[before[queries.starts[1:]]] - total[before[queries.starts[:-1]]]
    return np.argsort(key, kind="stable")


def search(collection: Collection, queries: Queries, which: Array, found: Array) -> Array:
    """Fills the rows `which` of `found` (m, k) int32 with the documents, best first; remaining cells keep
    their value.

    Returns the queries with too many candidates, which `Matrix.scores` searched.
    """
    rows, k = collection.rows, found.shape[1]
    candidates = np.full((len(which), k + ROOM), -1, np.int32)
    counts = np.zeros(len(which), np.int64)
    _search(
        which, queries.starts, queries.terms, queries.values, queries.own, *collection.wide,
        collection.block, len(rows), k, collection.entries, collection.cuts, collection.columns,
        candidates, counts,
    )  # fmt: skip
    exact = np.zeros(candidates.shape)
    _score(
        which, queries.starts, queries.terms, queries.values,
        rows.starts, rows.terms, rows.values, np.zeros(len(collection.cuts)), candidates, exact,
    )  # fmt: skip
    for line, query in enumerate(which.tolist()):
        if counts[line] < 0:
            scores = rows.scores(queries.vector(query))
            if queries.own[query] >= 0:
                scores[queries.own[query]] = 0.0
            chosen = best(scores, k)
        else:
            chosen = candidates[line, best(exact[line, : counts[line]], k)]
        found[query, : len(chosen)] = chosen
    return which[counts < 0]


@compiled
def _any_above(scores, wide, bar):  # type: ignore[no-untyped-def]
    """Returns how many scores are above `bar`, by a loop without a branch, which the compiler vectorises."""
    count = np.int32(0)
    for place in range(scores.size):
        count += np.int32(scores[place] + wide[place] > bar)
    return count


@compiled
def _largest(values, k):  # type: ignore[no-untyped-def]
    """Returns the k-th largest of at least k values and reorders them (quickselect by Hoare, 1961)."""
    low, high, sought = 0, values.size - 1, k - 1
    while low < high:
        pivot = values[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while values[left] > pivot:
                left += 1
            while values[right] < pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if sought <= right:
            high = right
        elif sought >= left:
            low = left
        else:
            break
    return values[sought]


@compiled
def _cut_down(scores, documents, count, k, margin, spare):  # type: ignore[no-untyped-def]
    """Drops candidates more than `margin` below the k-th of `count` > k; the order stays.

    Returns how many are left. spare : as long as `scores`, for the selection; its first place receives the
    lowest accepted score.
    """
    for place in range(count):
        spare[place] = scores[place]
    bar = _largest(spare[:count], k) - margin
    kept = 0
    for place in range(count):
        if scores[place] >= bar:
            scores[kept] = scores[place]
            documents[kept] = documents[place]
            kept += 1
    spare[0] = bar
    return kept


@compiled
def _same_wide(one, other, starts, terms, values, begin, end):  # type: ignore[no-untyped-def]
    """Returns whether two queries have the same values in the columns [begin, end)."""
    at, last, place, stop = starts[one], starts[one + 1], starts[other], starts[other + 1]
    while at < last and terms[at] < begin:
        at += 1
    while place < stop and terms[place] < begin:
        place += 1
    while at < last and terms[at] < end and place < stop and terms[place] < end:
        if terms[at] != terms[place] or values[at] != values[place]:
            return False
        at += 1
        place += 1
    return (at == last or terms[at] >= end) and (place == stop or terms[place] >= end)


@compiled
def _first_bar(scores, wide, k, tops):  # type: ignore[no-untyped-def]
    """Returns a score that documents of more than `k` chunks reach; 0 with too few chunks."""
    chunks = scores.size // CHUNK
    if chunks <= k:
        return np.float32(0)
    for chunk in range(chunks):
        top = np.float32(0)
        for place in range(chunk * CHUNK, chunk * CHUNK + CHUNK):
            top = max(top, scores[place] + wide[place])
        tops[chunk] = top
    return _largest(tops[:chunks], k + 1)


@compiled
def _search(  # type: ignore[no-untyped-def]
    which, starts, terms, values, own, wide_begin, wide_end, block, n, k, entries, cuts, columns,
    candidates, counts,
):  # fmt: skip
    """Fills candidates (m, k + ROOM), all documents that may be among the k best, in their order, and counts
    (m,), their number; -1 for too many."""
    size = candidates.shape[1]
    scores, wide = np.zeros(block, np.float32), np.zeros(block, np.float32)
    bars, margins = np.zeros(TILE, np.float32), np.zeros(TILE, np.float32)
    kept, documents = np.zeros((TILE, size), np.float32), np.zeros((TILE, size), np.int32)
    spare = np.zeros(max(block // CHUNK, size), np.float32)
    for tile in range(0, which.size, TILE):
        last = min(which.size, tile + TILE)
        for number in range(cuts.shape[1] - 1):
            base = number * block
            width = min(block, n - base)
            alike = -1
            for at in range(tile, last):
                query, line = which[at], at - tile
                if counts[at] < 0:
                    continue
                if alike < 0 or not _same_wide(alike, query, starts, terms, values, wide_begin, wide_end):
                    for place in range(width):
                        wide[place] = 0
                    for entry in range(starts[query], starts[query + 1]):
                        if wide_begin <= terms[entry] < wide_end:
                            value = values[entry]
                            column = columns[terms[entry] - wide_begin, base : base + width]
                            for place in range(width):
                                wide[place] += value * column[place]
                    alike = query
                total = np.float32(0)
                for entry in range(starts[query], starts[query + 1]):
                    term = terms[entry]
                    total += abs(values[entry])
                    if not wide_begin <= term < wide_end:
                        value = values[entry] / np.float32(STEPS)
                        for packed in entries[cuts[term, number] : cuts[term, number + 1]]:
                            scores[packed & np.uint32(0xFFFF)] += value * np.float32(
                                np.int32(packed >> np.uint32(16))
                            )
                if number == 0:
                    # The error of a value in 16 bits is at most a step (half a step, but no value becomes 0),
                    # that of a sum 2**-24 of at most 1 for each addition; both scores of a comparison have
                    # it.
                    length = np.float32(starts[query + 1] - starts[query] + 8)
                    margins[line] = np.float32(2.1) * (
                        total * np.float32(1.01 / STEPS) + length * np.float32(2.0**-24)
                    )
                    first = _first_bar(scores[:width], wide[:width], k, spare)
                    bars[line] = max(np.float32(0), first - margins[line])
                bar, count = bars[line], counts[at]
                for begin in range(0, width, CHUNK):
                    end = min(width, begin + CHUNK)
                    if count >= 0 and _any_above(scores[begin:end], wide[begin:end], bar):
                        for place in range(begin, end):
                            score = scores[place] + wide[place]
                            if score > bar and base + place != own[query]:
                                if count == size:
                                    count = _cut_down(
                                        kept[line], documents[line], count, k, margins[line], spare
                                    )
                                    bar = max(bar, spare[0])
                                    if count == size:
                                        count = -1
                                        break
                                kept[line, count] = score
                                documents[line, count] = base + place
                                count += 1
                scores[:width] = 0
                if count >= k + FEW or (count > k and number == cuts.shape[1] - 2):
                    count = _cut_down(kept[line], documents[line], count, k, margins[line], spare)
                    bar = max(bar, spare[0])
                counts[at] = count
                bars[line] = bar
        for at in range(tile, last):
            for place in range(counts[at]):
                candidates[at, place] = documents[at - tile, place]


@compiled
def _score(  # type: ignore[no-untyped-def]
    which, starts, terms, values, row_starts, row_terms, row_values, asked, candidates, exact
):  # fmt: skip
    """Fills exact (m, size), the candidates' scores; 0 for no candidate."""
    for at in range(which.size):
        begin, end = starts[which[at]], starts[which[at] + 1]
        for entry in range(begin, end):
            asked[terms[entry]] = values[entry]
        for place in range(candidates.shape[1]):
            document = candidates[at, place]
            if document < 0:
                break
            for entry in range(row_starts[document], row_starts[document + 1]):
                exact[at, place] += asked[row_terms[entry]] * np.float64(row_values[entry])
        for entry in range(begin, end):
            asked[terms[entry]] = 0
