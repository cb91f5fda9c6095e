"""From the survey of a CSV to the declaration it suggests: which column plays which part, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from vigia_ml.declaration import Task
from vigia_ml.scaffold import leaks, non_features, target
from vigia_ml.scaffold.csv_survey import CannotInfer, Survey
from vigia_ml.schema import Column, DatasetSchema
from vigia_ml.schema.columns import LONGEST_NAME
from vigia_ml.schema.row_keys import KEY_FIELD
from vigia_ml.schema.type_inference import canonical_names, guess_column

Part = Literal["feature", "target", "key", "left out"]


@dataclass(frozen=True)
class Wishes:
    """What the user said: columns by their names in the CSV, and the task.

    skip_unlabelled : whether rows without a target are left out.
    """

    target: str
    task: Task | None = None
    keep: frozenset[str] = frozenset()
    drop: frozenset[str] = frozenset()
    key: str | None = None
    skip_unlabelled: bool = False


@dataclass(frozen=True)
class Planned:
    """One column of the CSV and what becomes of it.

    source : its name in the CSV. column : its declaration, for features and the target.
    remarks : what was guessed, or why it is left out. suspicion : a warning about a feature.
    """

    source: str
    part: Part
    remarks: tuple[str, ...]
    column: Column | None = None
    suspicion: str = ""


@dataclass(frozen=True)
class Proposal:
    """A model file to be. planned : one entry a column, in the order of the CSV."""

    name: str
    task: Task
    rows: int
    planned: tuple[Planned, ...]
    hints: tuple[str, ...] = field(default=())

    @property
    def features(self) -> list[Planned]:
        return [each for each in self.planned if each.part == "feature"]

    @property
    def left_out(self) -> list[Planned]:
        return [each for each in self.planned if each.part == "left out"]

    @property
    def target(self) -> Planned:
        return next(each for each in self.planned if each.part == "target")

    @property
    def key(self) -> str | None:
        # A column called `_key` is the row's key in every schema and is not declared.
        keys = [each.source for each in self.planned if each.part == "key" and each.source != KEY_FIELD]
        return keys[0] if keys else None

    @property
    def schema(self) -> DatasetSchema:
        """The schema the file will declare."""
        found = self.target.column
        assert found is not None
        return DatasetSchema(
            columns=tuple(each.column for each in self.features if each.column is not None),
            target=found,
            key=self.key,
            ignored=tuple(each.source for each in self.left_out),
        )


def propose(name: str, seen: Survey, wishes: Wishes) -> Proposal:
    """Returns the parts of all columns.

    Raises
    ------
    CannotInfer : for names that are not in the file, a target that cannot be used, or no feature left.
    """
    _check_names(seen, wishes)
    aimed_at = seen.tallies[wishes.target]
    target.check(aimed_at, seen.first_blank.get(wishes.target), skip_unlabelled=wishes.skip_unlabelled)
    seen = seen.labelled(wishes.target)
    names = canonical_names(seen.header)
    aim = target.propose(aimed_at, names[wishes.target], _aliases(wishes.target, names), wishes.task)
    reasons = _set_aside(seen, wishes)
    open_names = [
        n for n in seen.header if n not in reasons and n not in (wishes.target, wishes.key, KEY_FIELD)
    ]
    # Kept columns are looked at as well: a kept part of a sum does not make the other part honest.
    hints: list[str] = []
    given_away = _giveaways(seen, open_names, wishes.target, hints)
    reasons |= {each: why for each, why in given_away.items() if each not in wishes.keep}
    planned: list[Planned] = []
    for each in seen.header:
        if each == wishes.target:
            planned.append(Planned(each, "target", (*_shortened(each, names), *aim.remarks), aim.column))
        elif each in (wishes.key, KEY_FIELD):
            planned.append(
                Planned(each, "key", ("the row's own key: logged with its prediction, no feature",))
            )
        elif each in reasons:
            planned.append(Planned(each, "left out", (reasons[each],)))
            if wishes.key is None and reasons[each].startswith("an identifier") and not hints:
                hints.append(
                    f"--key {each} would log it with every prediction, so outcomes can be sent by it"
                )
        else:
            guess = guess_column(seen.tallies[each], seen.column(each), names[each], _aliases(each, names))
            doubt = _suspicion(seen, each, guess.column, aim)
            remarks = (*_shortened(each, names), *guess.remarks)
            planned.append(Planned(each, "feature", remarks, guess.column, doubt))
    if not any(each.part == "feature" for each in planned):
        raise CannotInfer(
            f"no column is left to learn from; left out: {_listed(reasons)} (--keep NAME overrules)"
        )
    return Proposal(name, aim.task, aimed_at.filled, tuple(planned), tuple(hints))


def _check_names(seen: Survey, wishes: Wishes) -> None:
    asked = {"--target": [wishes.target], "--keep": wishes.keep, "--drop": wishes.drop}
    asked["--key"] = [wishes.key] if wishes.key is not None else []
    for option, names in asked.items():
        for name in sorted(names):
            if name in seen.header:
                continue
            near = [each for each in seen.header if _plain(each) == _plain(name)]
            said = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, seen.header))}"
            raise CannotInfer(f"{option}: the CSV has no column {name!r}; {said}")
    if wishes.target == wishes.key or wishes.target in wishes.drop:
        raise CannotInfer(f"{wishes.target!r} is the target and cannot be anything else")
    if wishes.target == KEY_FIELD:
        raise CannotInfer(f"{KEY_FIELD!r} is what a row's own key is called here: rename the target")


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()


def _aliases(name: str, names: dict[str, str]) -> tuple[str, ...]:
    return () if names[name] == name else (name,)


def _shortened(name: str, names: dict[str, str]) -> tuple[str, ...]:
    if len(name) <= LONGEST_NAME:
        return ()
    return (f"{len(name)} characters are too many for a name, it is {names[name]!r} here",)


def _set_aside(seen: Survey, wishes: Wishes) -> dict[str, str]:
    found = dict.fromkeys(wishes.drop - {wishes.key}, "as asked with --drop")
    for name, tally in seen.tallies.items():
        if name in found or name in wishes.keep or name in (wishes.target, wishes.key, KEY_FIELD):
            if name in wishes.keep and not tally.filled:
                raise CannotInfer(f"--keep: every cell of {name!r} is blank")
            continue
        why = non_features.why_left_out(tally, seen.column(name))
        if why:
            found[name] = why
    return found


def _floats(seen: Survey, name: str) -> leaks.Floats:
    number = seen.tallies[name].number
    return np.array([number(cell) for cell in seen.column(name)], dtype=np.float64)


def _target_numbers(seen: Survey, name: str) -> leaks.Floats | None:
    """Returns the target as numbers: itself, or the position of one of two levels; else None."""
    tally = seen.tallies[name]
    if tally.is_numeric:
        return _floats(seen, name)
    if tally.distinct != 2:
        return None
    second = max(tally.counts)
    return np.array([float(cell == second) for cell in seen.column(name)])


def _giveaways(seen: Survey, names: Sequence[str], aim: str, hints: list[str]) -> dict[str, str]:
    """Returns columns that settle the target -> why; a sum of all columns there are is a hint and no
    reason."""
    truth, texts = _target_numbers(seen, aim), seen.column(aim)
    numeric = {name: _floats(seen, name) for name in names if seen.tallies[name].is_numeric}
    found: dict[str, str] = {}
    for name in names:
        why = ""
        if name in numeric and truth is not None:
            why = leaks.copies(numeric[name], truth)
        why = why or leaks.determines(seen.column(name), texts, one_to_one=name in numeric)
        if why:
            found[name] = f"gives the target away: {why}"
    if truth is not None and seen.tallies[aim].is_numeric:
        rest = {name: values for name, values in numeric.items() if name not in found}
        for parts, equation in leaks.sums(rest, truth).items():
            for name in parts:
                found.setdefault(name, f"gives the target away: {equation} = {aim} in every row")
        rest = {name: values for name, values in numeric.items() if name not in found}
        for parts, (explained, equation) in leaks.weighted(rest, truth).items():
            said = f"{equation} is {aim}, or nearly (r² {explained:.4f})"
            if set(parts) >= set(names) - set(found):
                hints.append(f"SUSPICIOUS: {said}: are its columns known beforehand?")
                continue
            for name in parts:
                found.setdefault(name, f"gives the target away: {said}")
    return found


def _suspicion(seen: Survey, name: str, column: Column, aim: target.Target) -> str:
    if column.type == "text":
        return ""
    if column.is_numeric:
        values = _floats(seen, name)
    else:
        places = {text: place for place, text in enumerate(sorted(seen.tallies[name].counts))}
        values = np.array([float(places.get(cell, -1)) for cell in seen.column(name)])
    if aim.task == "regression":
        return leaks.suspicion(values, _floats(seen, _source(seen, aim)), regression=True)
    return leaks.suspicion(values, np.array(seen.column(_source(seen, aim))), regression=False)


def _source(seen: Survey, aim: target.Target) -> str:
    """Returns the target's name in the CSV."""
    known = (*aim.column.aliases, aim.column.name)
    return next(name for name in known if name in seen.header)


def _listed(reasons: dict[str, str]) -> str:
    return "; ".join(f"{name!r} ({why})" for name, why in reasons.items())
