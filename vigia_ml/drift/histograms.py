"""Two histograms of one column, bin beside bin, as shares of their rows. No Django here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vigia_ml.reference_profile import PREDICTION, PROBABILITY, Apart


@dataclass(frozen=True, slots=True)
class Bar:
    """One bin.

    reference, window : rows in it. reference_share, window_share : of all rows of theirs, 0 to 1; None where
        there are no rows at all.
    apart : what sets the bin apart from those of the training data.
    """

    label: str
    reference: int
    window: int
    reference_share: float | None
    window_share: float | None
    apart: Apart


def bars(kind: str, bins: Mapping[str, Any]) -> list[Bar]:
    """The bins of a finding (`predictions.models.DriftFinding`), in the order of `vigia_ml.bins.Bins`."""
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
    """What sets each bin apart, of a review made before reviews kept it: it followed from the bin's place."""
    found: list[Apart] = [""] * len(labels)
    found[-1] = "missing"
    if kind == "level":
        found[-2] = "unseen"
    else:
        found[0] = found[-2] = "outside"
    return found


def shown(found: Sequence[Bar]) -> list[Bar]:
    """Without what would only be in the way: empty bins that are set apart anyway."""
    return [
        bar for bar in found if bar.reference or bar.window or not (bar.apart or bar.label == "other levels")
    ]


def said(column: str) -> str:
    """A column's name for people; the answers have names of their own."""
    return {PREDICTION: "the prediction", PROBABILITY: "its probability"}.get(column, column)
