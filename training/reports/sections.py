"""Converts nested JSON of a version into sections for a page or a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Section:
    """A titled list of (name, value) pairs, or a table.

    title : empty for the top section. header, rows : the table; empty without one.
    """

    title: str
    pairs: list[tuple[str, Any]] = field(default_factory=list)
    header: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)


def sections(values: Mapping[str, Any], title: str = "") -> list[Section]:
    """Returns one section for each JSON object, in the order of their names; a list of objects is a table."""
    pairs: list[tuple[str, Any]] = []
    inner: list[Section] = []
    for name, value in values.items():
        label = name.replace("_", " ")
        path = f"{title}: {label}" if title else label
        if isinstance(value, Mapping):
            inner += sections(value, path)
        elif _is_table(value):
            header = list(dict.fromkeys(key for each in value for key in each))
            rows = [[_plain(each.get(key)) for key in header] for each in value]
            inner.append(Section(path, header=[key.replace("_", " ") for key in header], rows=rows))
        else:
            pairs.append((label, _plain(value)))
    return ([Section(title, pairs)] if pairs else []) + inner


def _is_table(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and bool(value)
        and all(isinstance(each, Mapping) for each in value)
    )


def _plain(value: Any) -> Any:
    """Returns a value as a cell: a list as comma-separated values, an object as names and values."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(str(_plain(each)) for each in value)
    return value
