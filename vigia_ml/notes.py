"""What a run has to say of its rows beyond its metrics: said where the run, its version or its card is read.

No Django here. A note is stored with the run as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

LOUD: Final = 0.05
"""Share of the rows that repeat an earlier one, from which dropping them is a warning."""
FEW_OF_A_CLASS: Final = 5
"""Rows of a class in the hold-out, below which one row more or less moves its recall by 0.2 and more."""
CLASSES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Note:
    """One remark. level : ``warning`` where the version's answers may mislead, else ``info``."""

    code: str
    level: Literal["info", "warning"]
    message: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def of_rows(rows: int, repeated: int, dropped: int, by_row_from: int | None) -> list[Note]:
    """The notes on how rows were dropped and divided.

    Parameters
    ----------
    rows : of the dataset. repeated : of them, equal to an earlier row. dropped : of the repeated ones.
    by_row_from : see `vigia_ml.evaluation.metrics.by_row_from`.
    """
    found = []
    share = f"{repeated:,} of {rows:,} rows ({repeated / max(1, rows):.1%}) repeat an earlier row"
    if dropped:
        loud = dropped > LOUD * rows
        said = f"{share} and were dropped (drop_duplicates=True)"
        if loud:
            said += (
                ": answers do not follow how often such rows occur; without drop_duplicates in the model's "
                "file they stay"
            )
        found.append(Note("duplicates_dropped", "warning" if loud else "info", said))
    elif repeated:
        said = f"{share} and are kept (drop_duplicates=True would drop them)"
        found.append(Note("duplicates_kept", "info", said))
    if by_row_from is not None:
        which = (
            "distinct feature rows are few, so rows were"
            if by_row_from == 1
            else f"feature rows that occur {by_row_from:,} times or more were"
        )
        said = f"split: by_row; {which} divided one by one, and equal rows are in training part and hold-out"
        found.append(Note("split_by_row", "info", said))
    return found


def of_classes(trained: Mapping[str, int], held: Mapping[str, int]) -> list[Note]:
    """Warnings on classes of which too few rows were held out to measure anything, or none was trained on.

    Parameters
    ----------
    trained, held : rows of each class in the training part and in the hold-out; a class may miss in one.
    """
    found = []
    few = {
        each: held.get(each, 0) for each in sorted({*trained, *held}) if held.get(each, 0) < FEW_OF_A_CLASS
    }
    if few:
        said = (
            f"the hold-out holds fewer than {FEW_OF_A_CLASS} rows of {_listed(few)}: the metrics say next to "
            f"nothing about {'this class' if len(few) == 1 else 'these classes'}; send more such rows"
        )
        found.append(Note("few_of_a_class", "warning", said))
    never = {each: rows for each, rows in sorted(held.items()) if each not in trained}
    if never:
        said = f"all rows of {_listed(never)} are in the hold-out: the model cannot answer so"
        found.append(Note("class_not_trained", "warning", said))
    return found


def _listed(classes: Mapping[str, int]) -> str:
    """Classes with their rows, the first few by name."""
    shown = [f"{name} ({rows})" for name, rows in list(classes.items())[:CLASSES_SHOWN]]
    more = len(classes) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def of_gate(gate: dict[str, Any]) -> list[Note]:
    """The warnings among the checks of a gate; see `vigia_ml.evaluation.metrics.Check`."""
    return [
        Note(check["name"], "warning", check["message"])
        for check in gate.get("checks", ())
        if check.get("warning")
    ]


def as_text(note: dict[str, Any]) -> str:
    """A stored note as one line; a warning says that it is one."""
    return f"WARNING: {note['message']}" if note["level"] == "warning" else str(note["message"])
