"""What is stored of a version as nested JSON, as sections that a page or a card can show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Section:
    """Pairs of name and value, or a table.

    title : empty for what stands at the top. header, rows : of the table; empty without one.
    """

    title: str
    pairs: list[tuple[str, Any]] = field(default_factory=list)
    header: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)


def sections(found: Mapping[str, Any], title: str = "") -> list[Section]:
    """One section for each object, in the order of their names; a list of objects is a table."""
    pairs: list[tuple[str, Any]] = []
    inner: list[Section] = []
    for name, value in found.items():
        words = name.replace("_", " ")
        whole = f"{title}: {words}" if title else words
        if isinstance(value, Mapping):
            inner += sections(value, whole)
        elif _is_table(value):
            header = list(dict.fromkeys(key for each in value for key in each))
            rows = [[_plain(each.get(key)) for key in header] for each in value]
            inner.append(Section(whole, header=[key.replace("_", " ") for key in header], rows=rows))
        else:
            pairs.append((words, _plain(value)))
    return ([Section(title, pairs)] if pairs else []) + inner


def _is_table(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and bool(value)
        and all(isinstance(each, Mapping) for each in value)
    )


def _plain(value: Any) -> Any:
    """A cell: lists as their values with commas, objects as name and value."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(str(_plain(each)) for each in value)
    return value
