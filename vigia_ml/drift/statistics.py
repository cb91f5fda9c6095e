"""Distances between a window's counts and the reference's. Functions over counts, with numpy alone.

`reference` and `window` are the rows in each bin, (k,) each, of the same bins. Bins that are empty on both
sides carry no information and are left out everywhere. All functions read only counts (and sums of the
numbers in each bin), so that a review's cost does not grow with the rows. scipy would bring 25 MB into every
web process for one function, so this module computes the chi-square distribution.
"""

from __future__ import annotations

import math
import zlib
from typing import Final

import numpy as np

from vigia_ml.bins import Floats, Whole

SMOOTHING: Final = 0.5
"""Rows added to each bin before the logarithms of shares."""
FEWEST_EXPECTED: Final = 5.0
"""Least expected rows of each bin for the chi-square approximation (Cochran 1954)."""
DRAWS: Final = 1_999
MOST_DRAWS: Final = 1_000_000
"""Enough for one column of 25,000 at a significance of 0.05; a few seconds for that column."""
DRAWN_AT_ONCE: Final = 10_000
"""Most draws held in memory at once."""
ENOUGH: Final = 50
"""After this many draws as extreme as the index the drawing ends: the p-value is far from small."""
FIRST_DRAWS: Final = 125
_MOST_DRAWN_FROM: Final = 1_000_000_000  # limit of numpy's hypergeometric draws


def used(reference: Whole, window: Whole) -> tuple[Whole, Whole]:
    """Returns both sides without the bins that are empty on both."""
    some = (reference > 0) | (window > 0)
    return reference[some], window[some]


# -- population stability index ------------------------------------------------------------------------


def psi(reference: Whole, window: Whole, smoothing: float = SMOOTHING) -> float:
    """Returns the population stability index: sum of (w - r) ln(w / r) over the shares r, w of the bins.

    Siddiqi, Credit Risk Scorecards (2006); it is Jeffreys' divergence of the shares. `smoothing` rows are
    added to each bin first; without smoothing, a bin that is empty on one side makes the index infinite.
    """
    before, after = used(reference, window)
    return float(_psi(before.astype(np.float64), after.astype(np.float64), smoothing))


def _psi(reference: Floats, window: Floats, smoothing: float) -> Floats:
    """Returns the index (...) of counts (..., k) in which no bin is empty on both sides."""
    before, after = reference + smoothing, window + smoothing
    r = before / before.sum(axis=-1, keepdims=True)
    w = after / after.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        index: Floats = ((w - r) * (np.log(w) - np.log(r))).sum(axis=-1)
    return index


def expected_psi(reference: Whole, window: Whole) -> float:
    """Returns the mean index without drift: (B - 1)(1/n + 1/m) for B bins, n and m rows.

    Without drift the index is distributed as (1/n + 1/m) times chi-square with B - 1 degrees of freedom
    (Yurdakul, "Statistical Properties of Population Stability Index", Western Michigan University, 2018).
    """
    before, after = used(reference, window)
    return (len(before) - 1) * _scale(before, after) if len(before) else 0.0


def adjusted_psi(reference: Whole, window: Whole) -> float:
    """Returns the index less its mean without drift; about zero without drift, even for few rows."""
    return psi(reference, window) - expected_psi(reference, window)


def _scale(reference: Whole, window: Whole) -> float:
    return 1.0 / float(reference.sum()) + 1.0 / float(window.sum())


def psi_p_value(reference: Whole, window: Whole, *, name: str = "", draws: int = DRAWS) -> float:
    """Returns the probability, without drift, of an index at least as large.

    The p-value comes from the chi-square distribution (see `expected_psi`) where each bin expects at least
    `FEWEST_EXPECTED` rows on both sides. Else windows are drawn without replacement from both sides together,
    at most `draws` times: windows without drift arise in this way for any shares, so the p-value is exact up
    to its resolution of 1 / (draws + 1). Drawing ends early by the rule of Besag and Clifford ("Sequential
    Monte Carlo p-values", Biometrika 78 (1991)).

    Parameters
    ----------
    name : the column's name. It seeds the draws, together with the counts, so that a review is reproducible.
    """
    before, after = used(reference, window)
    if len(before) < 2:
        return 1.0
    together = before + after
    index = psi(before, after)
    smaller = min(int(before.sum()), int(after.sum()))
    rows = int(together.sum())
    if smaller * int(together.min()) >= FEWEST_EXPECTED * rows or rows >= _MOST_DRAWN_FROM:
        return chi_square_survival(index / _scale(before, after), len(before) - 1)
    rng = np.random.default_rng([zlib.crc32(name.encode()), *before.tolist(), *after.tolist()])
    return _drawn_p_value(rng, together, smaller, index, draws)


def _drawn_p_value(rng: np.random.Generator, together: Whole, rows: int, index: float, draws: int) -> float:
    least = index * (1.0 - 1e-9)  # equal counts summed in another order count as equal
    beyond = done = 0
    while done < draws:
        some = min(max(FIRST_DRAWS, done), DRAWN_AT_ONCE, draws - done)
        part = rng.multivariate_hypergeometric(together, rows, size=some, method="marginals")
        reached = _psi((together - part).astype(np.float64), part.astype(np.float64), SMOOTHING) >= least
        if beyond + int(reached.sum()) >= ENOUGH:
            at = int(np.searchsorted(np.cumsum(reached), ENOUGH - beyond))
            return ENOUGH / (done + at + 1)
        beyond += int(reached.sum())
        done += some
    return (beyond + 1) / (draws + 1)


# -- other statistics ----------------------------------------------------------------------------------


def kolmogorov_smirnov(reference: Whole, window: Whole) -> float | None:
    """Returns the largest distance of the two distribution functions at the ends of the bins.

    The bins are in ascending order. The distance is at most that of the numbers themselves. None without
    rows on a side.
    """
    before, after = _shares(reference, window)
    if before is None or after is None:
        return None
    return float(np.abs(np.cumsum(before) - np.cumsum(after)).max())


def chi_square_p_value(reference: Whole, window: Whole) -> float | None:
    """Returns the p-value of Pearson's test of homogeneity of a table (2, B), without correction.

    Both rows are samples: the smaller the reference, the larger its noise. None without rows on a side.
    """
    before, after = used(reference, window)
    if not before.sum() or not after.sum():
        return None
    if len(before) < 2:
        return 1.0
    table = np.stack([before, after]).astype(np.float64)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    return chi_square_survival(float(((table - expected) ** 2 / expected).sum()), len(before) - 1)


def jensen_shannon(reference: Whole, window: Whole, base: float = math.e) -> float | None:
    """Returns the Jensen-Shannon distance, the square root of the divergence; 0 to sqrt(ln 2 / ln base).

    Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37 (1991); a distance by
    Endres and Schindelin, ibid. 49 (2003). None without rows on a side.
    """
    before, after = _shares(reference, window)
    if before is None or after is None:
        return None
    middle = (before + after) / 2
    divergence = (_relative_entropy(before, middle) + _relative_entropy(after, middle)) / 2
    return math.sqrt(max(divergence, 0.0) / math.log(base))


def wasserstein(
    reference: Whole, reference_totals: Floats, window: Whole, totals: Floats, deviation: float | None
) -> float | None:
    """Returns Wasserstein's distance of order 1, in standard deviations of the reference.

    It is the area between the distribution functions: the mean distance that turns the reference into the
    window. Each bin's rows count as lying at their mean, so a change within a bin counts only as far as it
    moves that mean.

    Parameters
    ----------
    reference_totals, totals : sums of the numbers in each bin (k,). deviation : standard deviation of the
        reference.

    Returns
    -------
    The distance; None without rows on a side, or where the reference has no spread.
    """
    before, after = _shares(reference, window)
    if before is None or after is None or not deviation or not math.isfinite(deviation):
        return None
    places = np.concatenate([_means(reference, reference_totals), _means(window, totals)])
    steps = np.concatenate([before[reference > 0], -after[window > 0]])
    order = np.argsort(places, kind="stable")
    apart = np.abs(np.cumsum(steps[order])[:-1])
    distance = float((apart * np.diff(places[order])).sum()) / deviation
    return distance if math.isfinite(distance) else None


def _means(counts: Whole, totals: Floats) -> Floats:
    some = counts > 0
    return np.asarray(totals[some] / counts[some], dtype=np.float64)


def _shares(reference: Whole, window: Whole) -> tuple[Floats | None, Floats | None]:
    """Returns each bin's share of its side's rows, (k,); None for a side without rows."""
    before, after = (
        counts / counts.sum() if counts.size and counts.sum() else None for counts in (reference, window)
    )
    return before, after


def _relative_entropy(of: Floats, to: Floats) -> float:
    some = of > 0
    return float((of[some] * np.log(of[some] / to[some])).sum())


# -- many columns --------------------------------------------------------------------------------------


def benjamini_hochberg(p_values: Floats) -> Floats:
    """Returns adjusted p-values (n,).

    If values of at most q are called significant, at most the share q of them is so by chance, on average.
    Benjamini and Hochberg, J. Royal Statistical Society B 57 (1995).
    """
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * count / np.arange(1, count + 1)
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted


# -- the chi-square distribution -----------------------------------------------------------------------


def chi_square_survival(value: float, freedom: int) -> float:
    """Returns P(X >= value) of chi-square with `freedom` degrees.

    It is the regularised upper incomplete gamma function Q(freedom / 2, value / 2), for whole degrees a
    finite sum of positive terms: Q(0, x) = 0, Q(1/2, x) = erfc(√x) and
    Q(a + 1, x) = Q(a, x) + x^a e^-x / Γ(a + 1) (NIST Digital Library of Mathematical Functions, 8.4.6 and
    8.8.6).
    """
    x = value / 2
    if x <= 0 or freedom < 1:
        return 1.0
    if not math.isfinite(x):
        return 0.0
    first = freedom % 2 / 2
    terms = [math.erfc(math.sqrt(x))] if first else []
    for step in range(freedom // 2):
        a = first + step
        terms.append(math.exp(a * math.log(x) - x - math.lgamma(a + 1)))
    return min(1.0, math.fsum(terms))
