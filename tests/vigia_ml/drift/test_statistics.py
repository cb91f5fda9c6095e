"""The statistics of a drift review, compared with published numbers and with scipy."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from vigia_ml.drift import statistics

A = np.array([16, 18, 16, 14, 12, 12])
B = np.array([16, 16, 16, 16, 16, 8])
counts = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=14).filter(
    lambda pairs: sum(a for a, _ in pairs) > 0 and sum(b for _, b in pairs) > 0
)


def test_the_index_equals_a_sum_computed_by_hand() -> None:
    reference, window = np.array([50, 30, 20]), np.array([30, 30, 40])
    assert statistics.psi(reference, window, 0) == pytest.approx(
        (0.3 - 0.5) * math.log(0.3 / 0.5) + (0.4 - 0.2) * math.log(0.4 / 0.2)
    )
    by_hand = sum(
        (w - r) * math.log(w / r)
        for r, w in [(50.5 / 101.5, 30.5 / 101.5), (30.5 / 101.5,) * 2, (20.5 / 101.5, 40.5 / 101.5)]
    )
    assert statistics.psi(reference, window) == pytest.approx(by_hand)
    assert statistics.expected_psi(reference, window) == pytest.approx(2 * (1 / 100 + 1 / 100))
    assert statistics.adjusted_psi(reference, window) == pytest.approx(by_hand - 0.04)


def test_the_example_of_the_documentation_is_reproduced() -> None:
    reference, window = np.array([500, 300, 200]), np.array([30, 30, 40])
    assert statistics.psi(reference, window, 0) == pytest.approx(0.2408, abs=5e-5)
    assert statistics.psi(reference, window) == pytest.approx(0.2385, abs=5e-5)
    assert statistics.expected_psi(reference, window) == pytest.approx(0.022)
    assert statistics.adjusted_psi(reference, window) == pytest.approx(0.2165, abs=5e-5)
    assert statistics.psi_p_value(reference, window) == pytest.approx(0.00002, abs=5e-6)
    assert statistics.kolmogorov_smirnov(reference, window) == pytest.approx(0.2)
    assert statistics.jensen_shannon(reference, window) == pytest.approx(0.172, abs=5e-4)
    tenths = np.full(10, 500), np.full(10, 5)
    assert statistics.expected_psi(*tenths) == pytest.approx(0.18, abs=0.005)


def test_bins_that_are_empty_on_both_sides_change_nothing() -> None:
    reference, window = np.array([5, 0, 90, 3, 0]), np.array([9, 0, 60, 0, 0])
    less = reference[[0, 2, 3]], window[[0, 2, 3]]
    for reading in (
        statistics.psi,
        statistics.adjusted_psi,
        statistics.psi_p_value,
        statistics.chi_square_p_value,
        statistics.jensen_shannon,
        statistics.kolmogorov_smirnov,
    ):
        assert reading(reference, window) == pytest.approx(reading(*less))


def test_a_level_that_the_reference_never_saw_makes_a_finite_index() -> None:
    index = statistics.psi(np.array([100, 0]), np.array([0, 100]))
    assert index == pytest.approx(2 * (100.5 - 0.5) / 101 * math.log(100.5 / 0.5))
    assert statistics.psi(np.array([100, 0]), np.array([0, 100]), 0) == math.inf
    assert statistics.psi_p_value(np.array([100, 0]), np.array([0, 100])) < 1e-9


def test_one_bin_gives_no_drift() -> None:
    one, other = np.array([0, 40, 0]), np.array([0, 7, 0])
    assert statistics.psi(one, other) == statistics.expected_psi(one, other) == 0
    assert statistics.psi_p_value(one, other) == statistics.chi_square_p_value(one, other) == 1
    assert statistics.kolmogorov_smirnov(one, other) == statistics.jensen_shannon(one, other) == 0


def test_statistics_without_rows_on_a_side_are_none() -> None:
    some, none = np.array([3, 4]), np.array([0, 0])
    for reading in (
        statistics.kolmogorov_smirnov,
        statistics.chi_square_p_value,
        statistics.jensen_shannon,
    ):
        assert reading(some, none) is None
        assert reading(none, some) is None
    assert statistics.wasserstein(some, some * 2.0, none, none * 1.0, 1.0) is None


@settings(max_examples=40)
@given(st.floats(0, 3000), st.integers(1, 200))
def test_the_chi_square_distribution_equals_scipys(value: float, freedom: int) -> None:
    assert statistics.chi_square_survival(value, freedom) == pytest.approx(
        stats.chi2.sf(value, freedom), rel=1e-9, abs=1e-14
    )


def test_the_chi_square_distribution_far_out_is_zero_and_not_an_error() -> None:
    assert statistics.chi_square_survival(1e9, 10) == 0 == statistics.chi_square_survival(math.inf, 3)
    assert statistics.chi_square_survival(0, 3) == statistics.chi_square_survival(-1, 3) == 1


@settings(max_examples=40)
@given(counts)
def test_chi_square_and_jensen_shannon_equal_scipys(pairs: list[tuple[int, int]]) -> None:
    reference, window = (np.array(side) for side in zip(*pairs, strict=True))
    table = np.stack([reference, window])[:, (reference + window) > 0]
    expected = stats.chi2_contingency(table, correction=False).pvalue
    assert statistics.chi_square_p_value(reference, window) == pytest.approx(expected, abs=1e-9)
    for base in (math.e, 2.0):
        assert statistics.jensen_shannon(reference, window, base) == pytest.approx(
            jensenshannon(reference, window, base), abs=1e-7
        )


def test_the_known_jensen_shannon_distances() -> None:
    assert statistics.jensen_shannon(A, B) == pytest.approx(0.0680, abs=5e-5)
    assert statistics.jensen_shannon(A, B, 2) == pytest.approx(0.0817, abs=5e-5)


def test_the_published_chi_square_assumes_a_reference_without_noise() -> None:
    # Pearson's test of fit treats one side as exact; a sample ten million times as large equals that.
    assert statistics.chi_square_p_value(A * 10_000_000, B) == pytest.approx(0.67309, abs=5e-6)
    assert statistics.chi_square_p_value(A, B) == pytest.approx(0.89853, abs=5e-6)


@settings(max_examples=40)
@given(st.lists(st.integers(-8, 8), min_size=1, max_size=60), st.lists(st.integers(-8, 8), min_size=1))
def test_distances_of_single_values_equal_scipys(before: list[int], after: list[int]) -> None:
    places = np.arange(-8, 9)
    reference, window = (np.array([side.count(place) for place in places]) for side in (before, after))
    with np.errstate(divide="ignore"):  # scipy's p-value for equal samples divides by zero
        expected = stats.ks_2samp(before, after, method="asymp").statistic
    assert statistics.kolmogorov_smirnov(reference, window) == pytest.approx(expected)
    result = statistics.wasserstein(
        reference, reference * places.astype(float), window, window * places.astype(float), 2.0
    )
    assert result == pytest.approx(stats.wasserstein_distance(before, after) / 2, abs=1e-9)


def test_wasserstein_is_the_shift_in_standard_deviations_and_sees_beyond_the_range() -> None:
    rng = np.random.default_rng(6)
    drawn = rng.normal(50, 10, 20_000)
    edges = np.quantile(drawn, np.linspace(0, 1, 11))
    edges[-1] += 1e-9

    def of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places = np.searchsorted(edges, values, side="right")
        return np.bincount(places, minlength=12), np.bincount(places, weights=values, minlength=12)

    for shift in (-5.0, 5.0, 300.0):
        result = statistics.wasserstein(*of(drawn), *of(drawn + shift), float(drawn.std()))
        assert result == pytest.approx(abs(shift) / drawn.std(), rel=1e-6)
    assert statistics.wasserstein(*of(drawn), *of(drawn), 0.0) is None
    assert statistics.wasserstein(*of(drawn), *of(drawn), None) is None


@settings(max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_adjusted_p_values_equal_scipys(p_values: list[float]) -> None:
    result = statistics.benjamini_hochberg(np.array(p_values))
    assert result == pytest.approx(stats.false_discovery_control(p_values), abs=1e-12)


def test_no_p_values_are_adjusted_to_none() -> None:
    assert statistics.benjamini_hochberg(np.zeros(0)).tolist() == []


# -- the p-value of the index --------------------------------------------------------------------------


def test_enough_rows_give_the_p_value_of_chi_square() -> None:
    reference, window = np.full(10, 300), np.array([60, 45, 50, 52, 48, 61, 40, 44, 50, 50])
    scaled = statistics.psi(reference, window) / (1 / 3000 + 1 / 500)
    assert statistics.psi_p_value(reference, window) == pytest.approx(stats.chi2.sf(scaled, 9))


def test_with_few_expected_rows_windows_are_drawn_and_a_review_repeats_exactly() -> None:
    reference, window = np.array([900, 80, 15, 5]), np.array([40, 6, 3, 1])
    state = np.random.get_state()[1].tolist()
    first = statistics.psi_p_value(reference, window, name="contract")
    assert statistics.psi_p_value(reference, window, name="contract") == first
    assert statistics.psi_p_value(reference, window, name="tenure") != first
    assert np.random.get_state()[1].tolist() == state, "numpy's global random state is left alone"


def test_the_drawn_p_value_is_the_exact_one_of_a_small_table() -> None:
    reference, window = np.array([18, 2]), np.array([3, 3])
    # All tables with the same margins, each with its hypergeometric probability.
    index = statistics.psi(reference, window)
    exact = sum(
        stats.hypergeom.pmf(k, 26, 21, 6)
        for k in range(1, 7)
        if statistics.psi(np.array([21 - k, 5 - (6 - k)]), np.array([k, 6 - k])) >= index - 1e-12
    )
    result = statistics.psi_p_value(reference, window, draws=40_000)
    enough = math.sqrt(statistics.ENOUGH)
    assert result == pytest.approx(exact, rel=4 / enough)


def test_the_smallest_p_value_is_one_per_number_of_draws() -> None:
    reference, window = np.array([1000, 1, 0]), np.array([0, 1, 60])
    assert statistics.psi_p_value(reference, window) == 1 / 2000
    assert statistics.psi_p_value(reference, window, draws=9_999) == 1 / 10_000


def test_p_values_are_valid_without_drift_however_rare_the_levels() -> None:
    rng = np.random.default_rng(11)
    shares = 1 / np.arange(1, 21) ** 1.5
    shares /= shares.sum()
    times = 300
    result = np.array(
        [
            statistics.psi_p_value(rng.multinomial(2000, shares), rng.multinomial(80, shares), name=str(k))
            for k in range(times)
        ]
    )
    for share in (0.05, 0.2, 0.5):
        assert (result <= share).mean() <= share + 3.5 * math.sqrt(share * (1 - share) / times)
        assert (result <= share).mean() >= share - 3.5 * math.sqrt(share * (1 - share) / times)


def test_more_rows_than_numpy_draws_from_use_the_distribution() -> None:
    reference, window = np.array([2_000_000_000, 3]), np.array([1_000_000_000, 1])
    assert 0.5 < statistics.psi_p_value(reference, window) <= 1


def test_web_processes_review_without_scipy_and_pandas() -> None:
    code = (
        "import sys; import vigia_ml.drift.verdicts, vigia_ml.drift.performance_estimation\n"
        "print([name for name in ('scipy', 'pandas', 'sklearn', 'django') if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
