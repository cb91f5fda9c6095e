"""Notes of a training run on its rows, shown with the run, its version and its model card.

No Django here. A note is stored with the run as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from vigia_ml.schema.faults import first_of

LOUD: Final = 0.05
"""Share of dropped repeated rows above which the note is a warning."""
FEW_OF_A_CLASS: Final = 5
"""With fewer hold-out rows of a class, one row more or less changes the class's recall by 0.2 or more."""
CLASSES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Note:
    """One note. level : ``warning`` where the version's answers may mislead, else ``info``."""

    code: str
    level: Literal["info", "warning"]
    message: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def of_rows(rows: int, repeated: int, dropped: int, by_row_from: int | None) -> list[Note]:
    """Returns the notes on dropped and divided rows.

    Parameters
    ----------
    rows : rows of the dataset. repeated : rows equal to an earlier one. dropped : dropped repeated rows.
    by_row_from : see `vigia_ml.evaluation.metrics.by_row_from`.
    """
    notes = []
    share = f"{repeated:,} of {rows:,} rows ({repeated / max(1, rows):.1%}) repeat an earlier row"
    if dropped:
        loud = dropped > LOUD * rows
        message = f"{share} and were dropped (drop_duplicates=True)"
        if loud:
            message += (
                ": answers ignore how often such rows occur; remove drop_duplicates from the model's file to "
                "keep them"
            )
        notes.append(Note("duplicates_dropped", "warning" if loud else "info", message))
    elif repeated:
        message = f"{share} and are kept (drop_duplicates=True would drop them)"
        notes.append(Note("duplicates_kept", "info", message))
    if by_row_from is not None:
        subject = (
            "distinct feature rows are few, so rows were"
            if by_row_from == 1
            else f"feature rows that occur {by_row_from:,} times or more were"
        )
        message = (
            f"split: by_row; {subject} divided one by one, and equal rows are in training part and hold-out"
        )
        notes.append(Note("split_by_row", "info", message))
    return notes


def of_classes(trained: Mapping[str, int], held: Mapping[str, int]) -> list[Note]:
    """Returns warnings on classes with too few hold-out rows for metrics, or without training rows.

    Parameters
    ----------
    trained, held : rows of each class in the training part and in the hold-out; either may lack a class.
    """
    notes = []
    few = {
        each: held.get(each, 0) for each in sorted({*trained, *held}) if held.get(each, 0) < FEW_OF_A_CLASS
    }
    if few:
        message = (
            f"the hold-out holds fewer than {FEW_OF_A_CLASS} rows of {_listed(few)}: the metrics say next to "
            f"nothing about {'this class' if len(few) == 1 else 'these classes'}; send more such rows"
        )
        notes.append(Note("few_of_a_class", "warning", message))
    never = {each: rows for each, rows in sorted(held.items()) if each not in trained}
    if never:
        message = f"all rows of {_listed(never)} are in the hold-out: the model cannot predict this"
        notes.append(Note("class_not_trained", "warning", message))
    return notes


def _listed(classes: Mapping[str, int]) -> str:
    """Returns the classes with their rows, the first few by name."""
    return first_of([f"{name} ({rows})" for name, rows in classes.items()], CLASSES_SHOWN)


def of_gate(gate: dict[str, Any]) -> list[Note]:
    """Returns the warnings among a gate's checks; see `vigia_ml.evaluation.metrics.Check`."""
    return [
        Note(check["name"], "warning", check["message"])
        for check in gate.get("checks", ())
        if check.get("warning")
    ]


def as_text(note: dict[str, Any]) -> str:
    """Returns a stored note as one line; a warning begins with ``WARNING``."""
    return f"WARNING: {note['message']}" if note["level"] == "warning" else str(note["message"])
