"""Two histograms of one column, bin by bin, as shares of their rows. No Django here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vigia_ml.reference_profile import PREDICTION, PROBABILITY, Apart


@dataclass(frozen=True, slots=True)
class Bar:
    """One bin in both histograms.

    reference, window : rows in the bin. reference_share, window_share : their shares of all rows, 0 to 1;
        None where a side has no rows.
    apart : kind of a bin outside the training data's bins, or empty.
    """

    label: str
    reference: int
    window: int
    reference_share: float | None
    window_share: float | None
    apart: Apart


def bars(kind: str, bins: Mapping[str, Any]) -> list[Bar]:
    """Returns a finding's bins (`predictions.models.DriftFinding`), in the order of `vigia_ml.bins.Bins`."""
    labels, reference, window = bins["labels"], bins["reference"], bins["window"]
    set_apart = bins.get("apart") or apart_by_place(kind, labels)
    all_reference, all_window = sum(reference), sum(window)
    return [
        Bar(
            label,
            before,
            now,
            before / all_reference if all_reference else None,
            now / all_window if all_window else None,
            apart,
        )
        for label, before, now, apart in zip(labels, reference, window, set_apart, strict=True)
    ]


def apart_by_place(kind: str, labels: Sequence[str]) -> list[Apart]:
    """Returns each bin's kind by its position, for reviews older than the stored kinds."""
    kinds: list[Apart] = [""] * len(labels)
    kinds[-1] = "missing"
    if kind == "level":
        kinds[-2] = "unseen"
    else:
        kinds[0] = kinds[-2] = "outside"
    return kinds


def shown(all_bars: Sequence[Bar]) -> list[Bar]:
    """Leaves out the empty bins outside the training data's bins."""
    return [
        bar
        for bar in all_bars
        if bar.reference or bar.window or not (bar.apart or bar.label == "other levels")
    ]


def said(column: str) -> str:
    """Returns a column's name for people; predictions and probabilities have names of their own."""
    return {PREDICTION: "the prediction", PROBABILITY: "its probability"}.get(column, column)
