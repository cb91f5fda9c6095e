"""Columns whose weighted sum is the target are left out, with the equation."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from django.core.management import call_command

from vigia_ml.bins import Floats
from vigia_ml.scaffold import leaks

ROWS = 400
RANDOM = np.random.default_rng(7)
A, B = RANDOM.normal(60, 10, ROWS), RANDOM.normal(50, 20, ROWS)
C, D = RANDOM.normal(5, 2, ROWS), RANDOM.normal(size=ROWS)
COLUMNS = {"a": A, "b": B, "c": C, "d": D}


def noisy(values: Floats, unexplained: float) -> Floats:
    noise = np.random.default_rng(8).normal(size=len(values))
    return np.asarray(values + noise * values.std() * np.sqrt(unexplained))


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ((A + B) / 2, ("a", "b")),
        (np.round((A + B) / 2), ("a", "b")),
        (0.3 * A + 0.7 * B, ("a", "b")),
        (noisy(0.3 * A + 0.7 * B, 0.002), ("a", "b")),
        (2 * A - 3 * B + 40, ("a", "b")),
        (B - A, ("a", "b")),
        ((A + B + C) / 3, ("a", "b", "c")),
        (noisy(A + 0.5 * B - 4 * C, 0.002), ("a", "b", "c")),
    ],
    ids=["mean", "rounded", "weighted", "noisy", "offset", "difference", "mean of three", "three"],
)
def test_a_weighted_sum_of_two_or_three_columns_is_found(target: Floats, parts: tuple[str, ...]) -> None:
    [(found, (explained, equation))] = leaks.weighted(COLUMNS, target).items()
    assert found == parts
    assert explained > 0.997
    assert all(f"× {name}" in equation for name in parts)


@pytest.mark.parametrize(
    "target",
    [noisy(0.3 * A + 0.7 * B, 0.02), A * B, noisy(A, 0.001), A + B + C + 10 * D, np.ones(ROWS)],
    ids=["too noisy", "a product", "one column alone", "four columns", "constant"],
)
def test_other_functions_of_the_columns_are_not_reported(target: Floats) -> None:
    assert leaks.weighted(COLUMNS, target) == {}


def test_blanks_are_left_out_or_count_as_zero() -> None:
    blanks = np.where(np.arange(ROWS) % 4 == 0, np.nan, B)
    columns = COLUMNS | {"b": blanks}
    assert list(leaks.weighted(columns, (A + B) / 2)) == [("a", "b")]
    assert list(leaks.weighted(columns, 2 * A + 3 * np.nan_to_num(blanks))) == [("a", "b")]


def test_columns_that_only_help_are_kept() -> None:
    """One column explains the target nearly alone; the others stay."""
    assert leaks.weighted(COLUMNS, noisy(A + 0.05 * D, 0.001)) == {}


def test_startmodel_leaves_such_columns_out_with_the_equation(tmp_path: Path) -> None:
    total = np.round(0.4 * A + 0.6 * B, 1)
    free = np.round(total + RANDOM.normal(0, 30, ROWS), 2)
    lines = ["exam,essay,hours,points"]
    lines += [f"{a:.3f},{b:.3f},{f},{t}" for a, b, f, t in zip(A, B, free, total, strict=True)]
    csv = tmp_path / "points.csv"
    csv.write_text("\n".join(lines) + "\n", encoding="utf-8")
    output = io.StringIO()
    call_command(
        "startmodel", "points", str(csv), "--target", "points", "--output", str(tmp_path), stdout=output
    )
    for name in ("exam", "essay"):
        [line] = [line for line in output.getvalue().splitlines() if line.startswith(f"  {name} ")]
        assert "LEFT OUT         gives the target away: 0.3999 × exam + 0.6 × essay" in line
        assert "is points, or nearly (r² 1.0000)" in line
    assert "hours   number" in output.getvalue()
