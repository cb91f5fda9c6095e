"""Classes with very few rows in the hold-out: the metrics do not cover them, and a note names them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.training.management.test_startmodel import Rows, start, write_csv
from vigia_ml import notes


def rows_with(rare: dict[str, int]) -> Rows:
    """Returns 400 rows of three classes that a number decides; some are renamed."""
    dice = random.Random(3)
    rows = []
    for _ in range(400):
        size = round(dice.gauss(0, 1), 3)
        rows.append([str(size), "low" if size < -0.3 else "mid" if size < 0.6 else "high"])
    places = iter(range(10, 400, 25))
    for name, times in rare.items():
        for _ in range(times):
            rows[next(places)][1] = name
    return [["size", "grade"], *rows]


def test_startmodel_names_the_classes_that_the_metrics_do_not_cover(db: None, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "grades.csv", rows_with({f"one{n:02}": 1 for n in range(12)}))
    output = start("grades", file, tmp_path, "--target", "grade").output
    assert "WARNING: the hold-out holds fewer than 5 rows of one00 (" in output
    assert "and 7 more: the metrics say next to nothing about these classes" in output
    assert "are in the hold-out: the model cannot predict this" in output
    assert "low (" not in output


def test_one_positive_row_in_the_hold_out_gives_no_roc_auc(db: None, tmp_path: Path) -> None:
    rows = [[size, "yes" if name == "fraud" else "no"] for size, name in rows_with({"fraud": 5})[1:]]
    file = write_csv(tmp_path / "frauds.csv", [["size", "fraud"], *rows])
    output = start("frauds", file, tmp_path, "--target", "fraud").output
    assert "WARNING: the hold-out holds fewer than 5 rows of true (" in output
    assert "about this class; send more such rows" in output


def test_classes_with_enough_rows_are_not_mentioned(db: None, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "plain.csv", rows_with({}))
    assert "the hold-out holds" not in start("plain", file, tmp_path, "--target", "grade").output


@pytest.mark.parametrize(
    ("trained", "held", "codes"),
    [
        ({"a": 20, "b": 20}, {"a": 5, "b": 5}, []),
        ({"a": 20, "b": 20}, {"a": 5, "b": 4}, ["few_of_a_class"]),
        ({"a": 20, "b": 1}, {"a": 5}, ["few_of_a_class"]),
        ({"a": 20}, {"a": 5, "b": 1}, ["few_of_a_class", "class_not_trained"]),
    ],
)
def test_a_class_is_counted_in_both_parts(
    trained: dict[str, int], held: dict[str, int], codes: list[str]
) -> None:
    assert [note.code for note in notes.of_classes(trained, held)] == codes
