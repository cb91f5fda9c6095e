"""Columns that leak the target: their values are known only with the target, so requests lack them.

Each finding is a sentence. All functions read aligned samples of the file and are deterministic.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vigia_ml.bins import Floats

NEARLY_ONE: Final = 0.999
SUSPICIOUS: Final = 0.98
PAIRED_COLUMNS: Final = 200
TRIPLED_COLUMNS: Final = 60  # 34,220 triples
SCORED_ROWS: Final = 5_000
FEWEST_ROWS: Final = 30
WEIGHTED: Final = 0.997  # R² of two or three columns; `NEARLY_ONE` judges a single column
PROMISING: Final = 0.9  # low, because with blanks the correlations come from different rows
TRIED_GROUPS: Final = 200
NEEDED: Final = 4.0


def copies(values: Floats, target: Floats) -> str:
    """Returns the reason why a numeric column repeats the target, or an empty string.

    Parameters
    ----------
    values, target : (n,), NaN where blank.
    """
    from scipy.stats import rankdata

    both = np.isfinite(values) & np.isfinite(target)
    if both.sum() < max(10, 0.5 * len(target)):
        return ""
    x, y = values[both], target[both]
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return ""
    if np.array_equal(x, y):
        return "it equals the target"
    for name, a, b in (("Pearson", x, y), ("Spearman", rankdata(x), rankdata(y))):
        correlation = float(np.corrcoef(a, b)[0, 1])
        if abs(correlation) > NEARLY_ONE:
            return f"it moves with the target ({name} correlation {correlation:.4f})"
    return ""


def determines(levels: Sequence[str], target: Sequence[str], *, one_to_one: bool) -> str:
    """Returns the reason why the levels of a column determine the target, or an empty string.

    Parameters
    ----------
    levels, target : n stripped cells each; blank levels do not count.
    one_to_one : whether only a one-to-one mapping is a reason.
    """
    target_of: dict[str, str] = {}
    filled = 0
    for level, value in zip(levels, target, strict=True):
        if not level:
            continue
        filled += 1
        if target_of.setdefault(level, value) != value:
            return ""
    values = set(target_of.values())
    if len(values) < 2 or len(target_of) * 5 > filled or filled < 0.9 * len(target):
        return ""
    if len(target_of) == len(values):
        return "its levels map one to one on the target"
    return "" if one_to_one else f"each of its {len(target_of)} levels has one value of the target"


def sums(columns: Mapping[str, Floats], target: Floats) -> dict[tuple[str, ...], str]:
    """Returns pairs and triples of columns that add up to the target in every row -> the equation.

    The difference of a pair counts as well.

    Parameters
    ----------
    columns : name -> (n,); a blank counts as 0. target : (n,), finite.
    """
    plain = {name: np.nan_to_num(values) for name, values in columns.items()}
    scale = float(np.abs(target).max(initial=0.0)) or 1.0
    equations: dict[tuple[str, ...], str] = {}
    for parts in _promising(columns, target):
        totals = {" + ".join(parts): np.sum([plain[name] for name in parts], axis=0)}
        if len(parts) == 2:
            totals |= {f"{a} - {b}": plain[a] - plain[b] for a, b in itertools.permutations(parts)}
        for equation, total in totals.items():
            if np.isclose(total, target, rtol=1e-9, atol=1e-9 * scale).all() and not _holds(equations, parts):
                equations[parts] = equation
    return equations


def weighted(columns: Mapping[str, Floats], target: Floats) -> dict[tuple[str, ...], tuple[float, str]]:
    """Returns pairs and triples of columns whose weighted sum is nearly the target -> (R², the equation).

    The fit is least squares with an intercept. Every column of a group is necessary: without it `NEEDED`
    times as much of the target is unexplained. A triple that contains a returned pair is left out.

    Parameters
    ----------
    columns : name -> (n,), NaN where blank. target : (n,), finite.
    """
    equations: dict[tuple[str, ...], tuple[float, str]] = {}
    y, numbers, blank_is_zero = _thinned(columns, target)
    for parts in _promising(columns, target):
        for values in (numbers, blank_is_zero):
            if _holds(equations, parts):
                break
            fitted = _fitted(parts, values, y)
            if fitted is not None and fitted[0] >= WEIGHTED:
                equations[parts] = fitted
    return equations


def _holds(equations: Iterable[tuple[str, ...]], parts: tuple[str, ...]) -> bool:
    """Returns whether some of the columns make an equation already."""
    return any(set(known) <= set(parts) for known in equations)


def _thinned(
    columns: Mapping[str, Floats], target: Floats
) -> tuple[Floats, dict[str, Floats], dict[str, Floats]]:
    """Returns (target, columns that vary, the same with blanks as 0) of at most `SCORED_ROWS` rows."""
    step = -(-len(target) // SCORED_ROWS)
    zeros = {name: np.nan_to_num(values[::step]) for name, values in columns.items()}
    zeros = {name: values for name, values in zeros.items() if np.ptp(values) > 0}
    return target[::step], {name: columns[name][::step] for name in zeros}, zeros


def _promising(columns: Mapping[str, Floats], target: Floats) -> Iterator[tuple[str, ...]]:
    """Yields pairs, then triples, of columns with promising correlations, best first.

    R² follows from correlations alone, so all groups are computed at once. With blanks the correlations are
    those of the rows that have both values, or of blanks counted as 0.
    """
    import pandas as pd

    if len(target) < FEWEST_ROWS:
        return
    y, numbers, blank_is_zero = _thinned(columns, target)
    if np.ptp(y) == 0:
        return
    for size, most in ((2, PAIRED_COLUMNS), (3, TRIPLED_COLUMNS)):
        names = _closest(list(numbers), blank_is_zero, y, most)
        if len(names) < size:
            return
        groups = np.array(list(itertools.combinations(range(len(names)), size)))
        best = np.zeros(len(groups))
        for values in (numbers, blank_is_zero):
            table = np.column_stack([*(values[name] for name in names), y])
            r2 = _explained(pd.DataFrame(table).corr().to_numpy(), groups)
            best = np.maximum(best, np.where(np.isfinite(r2), r2, 0.0))
        places = np.flatnonzero(best >= PROMISING)
        places = places[np.argsort(-best[places], kind="stable")][:TRIED_GROUPS]
        yield from (tuple(names[place] for place in groups[each]) for each in places)


def _explained(correlations: Floats, groups: npt.NDArray[np.intp]) -> Floats:
    """Returns R² (m,) of the last variable for each group (m, k) of the others."""
    inner = correlations[groups[:, :, None], groups[:, None, :]]
    outer = correlations[groups, -1]
    inner = np.nan_to_num(inner) + 1e-9 * np.eye(groups.shape[1])
    try:
        weights = np.linalg.solve(inner, np.nan_to_num(outer)[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        weights = np.einsum("mij,mj->mi", np.linalg.pinv(inner), np.nan_to_num(outer))
    return np.asarray((weights * np.nan_to_num(outer)).sum(axis=1))


def _fitted(
    parts: tuple[str, ...], columns: Mapping[str, Floats], target: Floats
) -> tuple[float, str] | None:
    """Returns (R², equation) over the rows where all parts are known; None where a part is not necessary."""
    table = np.column_stack([columns[name] for name in parts])
    rows = np.isfinite(table).all(axis=1)
    if rows.sum() < max(FEWEST_ROWS, 0.5 * len(target)) or np.ptp(target[rows]) == 0:
        return None
    table, y = table[rows], target[rows]
    left, weights = _unexplained(table, y)
    for place in range(len(parts)):
        without = _unexplained(np.delete(table, place, axis=1), y)[0]
        if without < NEEDED * left or without < 1e-9:
            return None
    return 1.0 - left, _equation(parts, weights)


def _unexplained(table: Floats, target: Floats) -> tuple[float, Floats]:
    """Returns (unexplained share of the target's variance, weights and intercept)."""
    scale = np.abs(table).max(axis=0)
    scale[scale == 0] = 1.0
    matrix = np.column_stack([table / scale, np.ones(len(table))])
    weights = np.linalg.lstsq(matrix, target, rcond=None)[0]
    left = float(((target - matrix @ weights) ** 2).sum() / ((target - target.mean()) ** 2).sum())
    return left, np.asarray(weights / np.append(scale, 1.0))


def _equation(parts: tuple[str, ...], weights: Floats) -> str:
    terms = [
        f"{'-' if weight < 0 else '+'} {abs(weight):.4g} × {name}"
        for name, weight in zip(parts, weights[:-1], strict=True)
    ]
    if abs(weights[-1]) > 1e-6 * np.abs(weights[:-1]).max():
        terms.append(f"{'-' if weights[-1] < 0 else '+'} {abs(weights[-1]):.4g}")
    return " ".join(terms).removeprefix("+ ")


def _closest(names: list[str], columns: Mapping[str, Floats], target: Floats, most: int) -> list[str]:
    """Returns the `most` columns with the highest correlation with the target, in their order."""
    if len(names) <= most:
        return names
    strength = {name: abs(float(np.corrcoef(columns[name], target)[0, 1])) for name in names}
    best = set(sorted(names, key=lambda name: -strength[name])[:most])
    return [name for name in names if name in best]


def suspicion(values: Floats, target: npt.NDArray[Any], *, regression: bool) -> str:
    """Returns a warning if a small tree on this column alone predicts the target almost perfectly.

    The column may be legitimate, so it stays a feature.

    Parameters
    ----------
    values : (n,) numbers or level codes, NaN where blank. target : (n,) numbers or classes.
    """
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    step = -(-len(values) // SCORED_ROWS)
    x, y = values[::step, None], target[::step]
    learn, judge = slice(0, None, 2), slice(1, None, 2)
    if len(y) < 40 or len(np.unique(y[learn])) < 2:
        return ""
    leaf = max(2, len(y) // 200)
    if regression:
        tree = DecisionTreeRegressor(max_depth=6, min_samples_leaf=leaf, random_state=0)
        score, name = tree.fit(x[learn], y[learn]).score(x[judge], y[judge]), "R²"
    else:
        forest = DecisionTreeClassifier(max_depth=6, min_samples_leaf=leaf, random_state=0)
        forest.fit(x[learn], y[learn])
        score, name = _auc(forest.predict_proba(x[judge]), forest.classes_, y[judge]), "AUC"
    if score <= SUSPICIOUS:
        return ""
    return f"alone it predicts the target almost perfectly ({name} {score:.3f}): is it known beforehand?"


def _auc(probability: Floats, classes: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Returns the mean one-against-the-rest area over the classes that occur."""
    from sklearn.metrics import roc_auc_score

    areas = [
        float(roc_auc_score(truth == label, probability[:, place]))
        for place, label in enumerate(classes)
        if 0 < int((truth == label).sum()) < len(truth)
    ]
    return float(np.mean(areas)) if areas else 0.0
