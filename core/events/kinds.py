"""The table of event kinds. An application registers its own in `AppConfig.ready`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class EventKind:
    """A kind of event.

    Parameters
    ----------
    name : such as ``version.activated``: a noun, a dot, a participle. Receivers filter by it.
    title : name in pages and mails. description : when the event is written, and the fields of its data.
    """

    name: str
    title: str
    description: str


TABLE: Final[dict[str, EventKind]] = {}


def register(kinds: Iterable[EventKind]) -> None:
    """Adds kinds to the table; raises `ValueError` for a name that is registered already."""
    for kind in kinds:
        if kind.name in TABLE:
            raise ValueError(f"the event kind {kind.name} is registered already: choose another name")
        TABLE[kind.name] = kind
