"""How far the counts of a window are from those of the reference. Functions over counts, numpy alone.

`reference` and `window` are rows in each bin, (k,) each, of the same bins. Bins that are empty on both sides
say nothing and are left out everywhere. No function looks at more than counts (and sums of the numbers in
each bin), so that what a review costs does not grow with the rows. scipy would bring 25 MB into every web
process for one function, so the chi-square distribution is computed here.
"""

from __future__ import annotations

import math
import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

SMOOTHING: Final = 0.5
"""Rows added to every bin before logarithms of shares are taken."""
FEWEST_EXPECTED: Final = 5.0
"""With fewer rows expected in some bin the chi-square distribution is no approximation (Cochran 1954)."""
DRAWS: Final = 1_999
MOST_DRAWS: Final = 1_000_000
"""Enough for one column of 25,000 at a significance of 0.05; a few seconds for that column."""
DRAWN_AT_ONCE: Final = 10_000
"""However many are drawn, so many are held in memory."""
ENOUGH: Final = 50
"""So many draws as extreme as what was found settle a p-value: it is far from small."""
FIRST_DRAWS: Final = 125
_MOST_DRAWN_FROM: Final = 1_000_000_000  # what numpy's hypergeometric draws take


def used(reference: Whole, window: Whole) -> tuple[Whole, Whole]:
    """Both without the bins that are empty on both sides."""
    some = (reference > 0) | (window > 0)
    return reference[some], window[some]


# -- population stability index ------------------------------------------------------------------------


def psi(reference: Whole, window: Whole, smoothing: float = SMOOTHING) -> float:
    """Population stability index: sum of (w - r) ln(w / r) over the shares r, w of the bins.

    Siddiqi, Credit Risk Scorecards (2006); it is Jeffreys' divergence of the shares. `smoothing` rows are
    added to each bin first; with none, a bin that is empty on one side alone makes it infinite.
    """
    found, drawn = used(reference, window)
    return float(_psi(found.astype(np.float64), drawn.astype(np.float64), smoothing))


def _psi(reference: Floats, window: Floats, smoothing: float) -> Floats:
    """Of counts (..., k) with no bin that is empty on both sides; (...)."""
    before, after = reference + smoothing, window + smoothing
    r = before / before.sum(axis=-1, keepdims=True)
    w = after / after.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        found: Floats = ((w - r) * (np.log(w) - np.log(r))).sum(axis=-1)
    return found


def expected_psi(reference: Whole, window: Whole) -> float:
    """What the index comes to, on average, without any drift: (B - 1)(1/n + 1/m) for B bins, n and m rows.

    Without drift it is distributed as (1/n + 1/m) times chi-square with B - 1 degrees of freedom (Yurdakul,
    "Statistical Properties of Population Stability Index", Western Michigan University, 2018).
    """
    found, drawn = used(reference, window)
    return (len(found) - 1) * _scale(found, drawn) if len(found) else 0.0


def adjusted_psi(reference: Whole, window: Whole) -> float:
    """The index less what chance makes of it; about zero without drift, however few the rows."""
    return psi(reference, window) - expected_psi(reference, window)


def _scale(reference: Whole, window: Whole) -> float:
    return 1.0 / float(reference.sum()) + 1.0 / float(window.sum())


def psi_p_value(reference: Whole, window: Whole, *, name: str = "", draws: int = DRAWS) -> float:
    """The probability of an index as large as this one, or larger, without drift.

    From the chi-square distribution (see `expected_psi`) where each bin may expect `FEWEST_EXPECTED` rows on
    both sides; else by drawing windows out of both together without replacement, at most `draws` times: that
    is how windows come about without drift, whatever the shares are, so the p-value is exact but for its
    resolution of 1 / (draws + 1). Drawing ends early by the rule of Besag and Clifford ("Sequential Monte
    Carlo p-values", Biometrika 78 (1991)).

    Parameters
    ----------
    name : of the column. With the counts it decides the draws, so that a review gives the same again.
    """
    found, drawn = used(reference, window)
    if len(found) < 2:
        return 1.0
    together = found + drawn
    index = psi(found, drawn)
    smaller = min(int(found.sum()), int(drawn.sum()))
    rows = int(together.sum())
    if smaller * int(together.min()) >= FEWEST_EXPECTED * rows or rows >= _MOST_DRAWN_FROM:
        return chi_square_survival(index / _scale(found, drawn), len(found) - 1)
    rng = np.random.default_rng([zlib.crc32(name.encode()), *found.tolist(), *drawn.tolist()])
    return _drawn_p_value(rng, together, smaller, index, draws)


def _drawn_p_value(rng: np.random.Generator, together: Whole, rows: int, index: float, draws: int) -> float:
    least = index * (1.0 - 1e-9)  # equal counts in another order of summing are equal
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


# -- other readings ------------------------------------------------------------------------------------


def kolmogorov_smirnov(reference: Whole, window: Whole) -> float | None:
    """The largest distance of the two distribution functions at the ends of the bins, which are in ascending
    order; at most that of the numbers themselves. None without rows on a side."""
    before, after = _shares(reference, window)
    if before is None or after is None:
        return None
    return float(np.abs(np.cumsum(before) - np.cumsum(after)).max())


def chi_square_p_value(reference: Whole, window: Whole) -> float | None:
    """Pearson's test of homogeneity of the two rows of a table (2, B), no correction; None without rows on a
    side. Both are samples here: the smaller the reference, the more its own noise is allowed for."""
    found, drawn = used(reference, window)
    if not found.sum() or not drawn.sum():
        return None
    if len(found) < 2:
        return 1.0
    table = np.stack([found, drawn]).astype(np.float64)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    return chi_square_survival(float(((table - expected) ** 2 / expected).sum()), len(found) - 1)


def jensen_shannon(reference: Whole, window: Whole, base: float = math.e) -> float | None:
    """Jensen-Shannon distance, the square root of the divergence; 0 to sqrt(ln 2 / ln base).

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
    """How far a row has to be moved on average to make the window of the reference, in standard deviations
    of the reference (Wasserstein's distance of order 1: the area between the distribution functions).

    Each bin's rows are taken to lie at their mean, so what happens within a bin is seen as far as it moves
    that mean.

    Parameters
    ----------
    reference_totals, totals : sums of the numbers in each bin (k,). deviation : of the reference.

    Returns
    -------
    None without rows on a side, or where the reference has no spread to measure by.
    """
    before, after = _shares(reference, window)
    if before is None or after is None or not deviation or not math.isfinite(deviation):
        return None
    places = np.concatenate([_means(reference, reference_totals), _means(window, totals)])
    steps = np.concatenate([before[reference > 0], -after[window > 0]])
    order = np.argsort(places, kind="stable")
    apart = np.abs(np.cumsum(steps[order])[:-1])
    found = float((apart * np.diff(places[order])).sum()) / deviation
    return found if math.isfinite(found) else None


def _means(counts: Whole, totals: Floats) -> Floats:
    some = counts > 0
    return np.asarray(totals[some] / counts[some], dtype=np.float64)


def _shares(reference: Whole, window: Whole) -> tuple[Floats | None, Floats | None]:
    """Of the rows in each bin, (k,); None of a side without rows."""
    before, after = (
        counts / counts.sum() if counts.size and counts.sum() else None for counts in (reference, window)
    )
    return before, after


def _relative_entropy(of: Floats, to: Floats) -> float:
    some = of > 0
    return float((of[some] * np.log(of[some] / to[some])).sum())


# -- many columns --------------------------------------------------------------------------------------


def benjamini_hochberg(p_values: Floats) -> Floats:
    """Adjusted p-values (n,): those at most q are called significant, and of these no more than the share q
    is so by chance, on average. Benjamini and Hochberg, J. Royal Statistical Society B 57 (1995)."""
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * count / np.arange(1, count + 1)
    found = np.empty(count)
    found[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return found


# -- the chi-square distribution -----------------------------------------------------------------------


def chi_square_survival(value: float, freedom: int) -> float:
    """P(X >= value) of chi-square with `freedom` degrees: the upper incomplete gamma function, regularised.

    By its series where `value` is small and by its continued fraction elsewhere (NIST Digital Library of
    Mathematical Functions, 8.7.1 and 8.9.2, the latter by Lentz's algorithm, as in Press et al., Numerical
    Recipes, 3rd ed., section 6.2).
    """
    a, x = freedom / 2, value / 2
    if x <= 0 or freedom < 1:
        return 1.0
    if not math.isfinite(x):
        return 0.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        return max(0.0, 1.0 - front * _series(a, x))
    return front * _fraction(a, x)


def _series(a: float, x: float) -> float:
    term = total = 1.0 / a
    step = a
    while abs(term) > 1e-16 * abs(total):
        step += 1.0
        term *= x / step
        total += term
    return total


def _fraction(a: float, x: float) -> float:
    b = x + 1.0 - a
    c, d = math.inf, 1.0 / b
    found = d
    for step in range(1, 10_000):
        factor = -step * (step - a)
        b += 2.0
        d = 1.0 / _not_zero(factor * d + b)
        c = _not_zero(b + factor / c)
        found *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return found


def _not_zero(number: float) -> float:
    return number if abs(number) > 1e-300 else 1e-300
