"""Top-k search over inverted lists, compiled by numba: exact, deterministic, without the interpreter's lock.

A query's terms are added to the scores of one block of documents at a time, small enough for the processor's
cache. The lists hold a document's place in its block and its value, 16 bits each, so that those of a block
fit the cache too. A field of few terms that very many documents have (genres) is not added list by list: it
lies in dense columns that are summed once for all queries that agree in it, and queries come in that order.

So scores are slightly wrong, by no more than is known. All candidates that may be among the k best are kept
and scored again in float64, where sums are exact (`sparse_matrix`). The query that has too many of them (some
hundreds equal to the last digit) is searched again in float64 throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

from recommender.index.packed_arrays import Array
from recommender.index.sparse_matrix import Matrix

BLOCK: Final = 65_536
"""Documents whose scores are held at once, at most 65,536: with the sum of the dense columns, 512 KB."""

CHUNK: Final = 64
"""Documents of which it is asked at once whether any is good enough."""

ROOM: Final = 512
"""Candidates beyond k that may gather before those that cannot be among the k best are dropped."""

FEW: Final = 60
"""Candidates beyond k that are carried on from one block to the next; most queries end with fewer."""

TILE: Final = 256
"""Queries that pass over a block before the next block is taken."""

STEPS: Final = 65_535.0
"""A value in 16 bits is a multiple of 1 / `STEPS`."""


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled at the first call; kept on disk where there is a directory to write to, which a container with
    read-only code may lack."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)


@dataclass(frozen=True, slots=True)
class Queries:
    """m rows in CSR. own : (m,) int64, the document that is no answer to the query, or -1."""

    starts: Array
    terms: Array
    values: Array
    own: Array


@dataclass(frozen=True, slots=True)
class Collection:
    """The documents (n, p), laid out for the search.

    Parameters
    ----------
    rows : both ways. wide : columns [begin, end) that are dense. block : documents in a block.
    entries : (nnz,) uint32 in the order of the lists, the place in the block and 65,536 * the value in steps.
    cuts : (p, blocks + 1) int64, where the entries of each block begin in the term's list.
    columns : (wide terms, n) float32.
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
    """(p, blocks + 1) where the entries of a block begin in each list."""
    p, blocks = len(rows.list_starts) - 1, -(-len(rows) // block)
    cuts = np.zeros((p, blocks + 1), np.int64)
    for start in range(0, p, 65_536):  # in pieces, for the sake of memory
        stop = min(p, start + 65_536)
        begin, end = rows.list_starts[start], rows.list_starts[stop]
        lists = np.repeat(np.arange(stop - start), np.diff(rows.list_starts[start : stop + 1]))
        places = lists * blocks + rows.list_rows[begin:end] // block
        counts = np.bincount(places, minlength=(stop - start) * blocks).reshape(-1, blocks)
        np.cumsum(counts, axis=1, out=cuts[start:stop, 1:])
    return cuts + rows.list_starts[:-1, None]


def alike_together(queries: Queries, wide: tuple[int, int]) -> npt.NDArray[np.int64]:
    """The queries in an order in which those that agree in their wide terms follow one another."""
    is_wide = (queries.terms >= wide[0]) & (queries.terms < wide[1])
    before = np.concatenate(([0], np.cumsum(is_wide)))
    bits = queries.values[is_wide].astype(np.float32).view(np.uint32).astype(np.uint64)
    mixed = (bits << np.uint64(16) ^ queries.terms[is_wide].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    total = np.concatenate(([np.uint64(0)], np.cumsum(mixed ^ (mixed >> np.uint64(29)), dtype=np.uint64)))
    key = total[before[queries.starts[1:]]] - total[before[queries.starts[:-1]]]
    return np.argsort(key, kind="stable")


def search(collection: Collection, queries: Queries, which: Array, found: Array) -> Array:
    """Fills the rows `which` of `found` (m, k) int32 with the documents, best first; what is left stays.

    Returns the queries that had to be searched in float64.
    """
    rows, k = collection.rows, found.shape[1]
    candidates = np.full((len(which), k + ROOM), -1, np.int32)
    counts = np.zeros(len(which), np.int64)
    _search(
        which, queries.starts, queries.terms, queries.values, queries.own, *collection.wide,
        collection.block, len(rows), k, collection.entries, collection.cuts, collection.columns,
        candidates, counts,
    )  # fmt: skip
    few = counts <= k + FEW
    for chosen in (np.flatnonzero(few & (counts >= 0)), np.flatnonzero(~few)):
        held = candidates[chosen, : counts[chosen].max(initial=k)]
        exact = np.zeros(held.shape)
        _score(
            which[chosen], queries.starts, queries.terms, queries.values,
            rows.starts, rows.terms, rows.values, np.zeros(len(collection.cuts)), held, exact,
        )  # fmt: skip
        found[which[chosen]] = _ordered(held, exact, k)
    unproven = which[counts < 0]
    if len(unproven):
        held, exact = np.full((len(unproven), k), -1, np.int32), np.zeros((len(unproven), k))
        _search_exactly(
            unproven, queries.starts, queries.terms, queries.values, queries.own,
            rows.list_starts, rows.list_rows, rows.list_values, np.zeros(len(rows)), held, exact,
        )  # fmt: skip
        found[unproven] = _ordered(held, exact, k)
    return unproven


def _ordered(candidates: Array, exact: Array, k: int) -> Array:
    """(m, k) the candidates of the largest scores above 0, best first, then -1."""
    order = np.argsort(-exact, axis=1, kind="stable")[:, :k]  # candidates come by row, so ties stay by row
    exact = np.take_along_axis(exact, order, axis=1)
    return np.asarray(np.where(exact > 0, np.take_along_axis(candidates, order, axis=1), -1))


@compiled
def _any_above(scores, wide, bar):  # type: ignore[no-untyped-def]
    """How many are above `bar`: a loop without a branch, so that it is done eight at a time."""
    count = np.int32(0)
    for place in range(scores.size):
        count += np.int32(scores[place] + wide[place] > bar)
    return count


@compiled
def _largest(values, k):  # type: ignore[no-untyped-def]
    """The k-th largest of at least k values, which are moved about (quickselect by Hoare, 1961)."""
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
    """Drops candidates that are behind the k-th of `count` > k by more than `margin`; the order stays.

    Returns how many are left. spare : as long as `scores`, for the selection; its first place receives the
    score that was asked for.
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
    """Whether two queries agree in the columns [begin, end)."""
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
    """A number that more than `k` scores reach: so many chunks have one. 0 with too few chunks."""
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
    """candidates : (m, k + ROOM) all that may be among the k best, in the order of the documents.
    counts : (m,) how many there are; -1 where there are too many."""
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
                    # A value in 16 bits is wrong by a step at most (by half of one, but none becomes 0), a
                    # sum by 2**-24 of at most 1 for each addition; and so may both scores be.
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
    """exact : (m, size) the candidates' scores, 0 where there is none."""
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


@compiled
def _search_exactly(  # type: ignore[no-untyped-def]
    which, starts, terms, values, own, list_starts, list_rows, list_values, scores, candidates, exact
):  # fmt: skip
    """The same in float64 throughout, a query at a time: several times as long."""
    k = candidates.shape[1]
    spare, kept, documents = np.zeros(scores.size), np.zeros(scores.size), np.zeros(scores.size, np.int32)
    for at in range(which.size):
        query = which[at]
        for entry in range(starts[query], starts[query + 1]):
            term, value = terms[entry], np.float64(values[entry])
            for place in range(list_starts[term], list_starts[term + 1]):
                scores[list_rows[place]] += value * np.float64(list_values[place])
        if own[query] >= 0:
            scores[own[query]] = 0
        count = 0
        for document in range(scores.size):
            if scores[document] > 0:
                kept[count] = scores[document]
                documents[count] = document
                count += 1
            scores[document] = 0
        if count > k:
            count = _cut_down(kept, documents, count, k, 0.0, spare)
        # Those ahead of the k-th first, so that of its equals the first ones are left.
        equals = k
        for place in range(count):
            equals -= count > k and kept[place] > spare[0]
        line = 0
        for place in range(count):
            if count <= k or kept[place] > spare[0] or equals > 0:
                equals -= count > k and kept[place] == spare[0]
                candidates[at, line] = documents[place]
                exact[at, line] = kept[place]
                line += 1
