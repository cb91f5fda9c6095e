"""What a run has to say of its rows beyond its metrics: said where the run, its version or its card is read.

No Django here. A note is stored with the run as JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

LOUD: Final = 0.05
"""Share of the rows that repeat an earlier one, from which dropping them is a warning."""


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
