"""Proposes a declaration from the survey of a CSV: the part of each column and the reason."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from vigia_ml.bins import Floats
from vigia_ml.declaration import Task
from vigia_ml.scaffold import leaks, non_features, target
from vigia_ml.scaffold.csv_survey import CannotInfer, Survey
from vigia_ml.schema import Column, DatasetSchema, moments
from vigia_ml.schema.columns import LONGEST_NAME, written_name
from vigia_ml.schema.row_keys import KEY_FIELD
from vigia_ml.schema.type_inference import canonical_names, guess_column

Part = Literal["feature", "target", "key", "weight", "left out"]


@dataclass(frozen=True)
class Wishes:
    """The user's options: columns by their names in the CSV, and the task.

    skip_unlabelled : whether rows without a target are left out. weight : the column of sample weights.
    """

    target: str
    task: Task | None = None
    keep: frozenset[str] = frozenset()
    drop: frozenset[str] = frozenset()
    key: str | None = None
    skip_unlabelled: bool = False
    weight: str | None = None


@dataclass(frozen=True)
class Planned:
    """The plan for one column of the CSV.

    source : its name in the CSV. column : its declaration, for features and the target.
    remarks : remarks on the declaration, or the reason for leaving it out. suspicion : warning on a feature.
    """

    source: str
    part: Part
    remarks: tuple[str, ...]
    column: Column | None = None
    suspicion: str = ""


@dataclass(frozen=True)
class Proposal:
    """The content of a model file. planned : one entry per column, in the order of the CSV."""

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
        # A column `_key` is the client key in every schema and is not declared.
        keys = [each.source for each in self.planned if each.part == "key" and each.source != KEY_FIELD]
        return keys[0] if keys else None

    @property
    def weight(self) -> str | None:
        weights = [each.source for each in self.planned if each.part == "weight"]
        return weights[0] if weights else None

    @property
    def schema(self) -> DatasetSchema:
        """The schema that the file declares."""
        target_column = self.target.column
        assert target_column is not None
        return DatasetSchema(
            columns=tuple(each.column for each in self.features if each.column is not None),
            target=target_column,
            key=self.key,
            ignored=tuple(each.source for each in self.left_out),
            weight=self.weight,
        )


def propose(name: str, seen: Survey, wishes: Wishes) -> Proposal:
    """Proposes the part of each column.

    Raises
    ------
    CannotInfer : when a name is not in the file, the target is unusable, or no feature is left.
    """
    wishes = replace(
        wishes,
        target=written_name(wishes.target),
        keep=frozenset(map(written_name, wishes.keep)),
        drop=frozenset(map(written_name, wishes.drop)),
        key=None if wishes.key is None else written_name(wishes.key),
        weight=None if wishes.weight is None else written_name(wishes.weight),
    )
    _check_names(seen, wishes)
    _check_weight(seen, wishes)
    target_stats = seen.tallies[wishes.target]
    target.check(target_stats, seen.first_blank.get(wishes.target), skip_unlabelled=wishes.skip_unlabelled)
    seen = seen.labelled(wishes.target)
    names = canonical_names(seen.header)
    aim = target.propose(target_stats, names[wishes.target], _aliases(wishes.target, names), wishes.task)
    reasons = _set_aside(seen, wishes)
    taken = (wishes.target, wishes.key, wishes.weight, KEY_FIELD)
    open_names = [n for n in seen.header if n not in reasons and n not in taken]
    # The search includes kept columns: a kept part of a sum does not make the other part legitimate.
    hints: list[str] = []
    leaking = _leaks(seen, open_names, wishes.target, hints)
    reasons |= {each: reason for each, reason in leaking.items() if each not in wishes.keep}
    planned: list[Planned] = []
    for each in seen.header:
        if each == wishes.target:
            planned.append(Planned(each, "target", (*_shortened(each, names), *aim.remarks), aim.column))
        elif each in (wishes.key, KEY_FIELD):
            planned.append(
                Planned(each, "key", ("the client key: logged with the prediction, not a feature",))
            )
        elif each == wishes.weight:
            planned.append(
                Planned(each, "weight", ("weighs the rows in training and metrics, not a feature",))
            )
        elif each in reasons:
            planned.append(Planned(each, "left out", (reasons[each],)))
            if wishes.key is None and reasons[each].startswith("an identifier") and not hints:
                option = f"--key {shlex.quote(each)}"
                hints.append(f"{option} logs it with every prediction, so that outcomes can be sent by it")
        else:
            guess = guess_column(seen.tallies[each], seen.column(each), names[each], _aliases(each, names))
            suspicion = _suspicion(seen, each, guess.column, wishes.target, aim.task)
            remarks = (*_shortened(each, names), *guess.remarks)
            planned.append(Planned(each, "feature", remarks, guess.column, suspicion))
    if not any(each.part == "feature" for each in planned):
        left_out = "; ".join(f"{each!r} ({why})" for each, why in reasons.items())
        raise CannotInfer(
            f"no column is left to learn from; left out: {left_out} (--keep NAME keeps a column)"
        )
    return Proposal(name, aim.task, target_stats.filled, tuple(planned), tuple(hints))


def _check_names(seen: Survey, wishes: Wishes) -> None:
    options = {"--target": [wishes.target], "--keep": wishes.keep, "--drop": wishes.drop}
    options["--key"] = [wishes.key] if wishes.key is not None else []
    options["--weight"] = [wishes.weight] if wishes.weight is not None else []
    for option, names in options.items():
        for name in sorted(names):
            if name in seen.header:
                continue
            near = [each for each in seen.header if _plain(each) == _plain(name)]
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, seen.header))}"
            raise CannotInfer(f"{option}: the CSV has no column {name!r}; {hint}")
    if wishes.target == wishes.key or wishes.target in wishes.drop:
        raise CannotInfer(f"{wishes.target!r} is the target; it cannot be the key or be dropped")
    if wishes.target == KEY_FIELD:
        raise CannotInfer(f"{KEY_FIELD!r} is the name of the client key: rename the target")


def _check_weight(seen: Survey, wishes: Wishes) -> None:
    if wishes.weight is None:
        return
    name, tally = wishes.weight, seen.tallies[wishes.weight]
    if name in (wishes.target, wishes.key, KEY_FIELD) or name in wishes.drop:
        raise CannotInfer(f"--weight: {name!r} is the target, the key, or dropped: name another column")
    if not tally.is_numeric or tally.signs or tally.blanks:
        raise CannotInfer(f"--weight: {name!r} must hold a plain number in every row")
    if tally.minimum < 0 or tally.maximum <= 0:
        raise CannotInfer(f"--weight: {name!r} must hold numbers of at least 0, not all 0")


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()


def _aliases(name: str, names: dict[str, str]) -> tuple[str, ...]:
    return () if names[name] == name else (name,)


def _shortened(name: str, names: dict[str, str]) -> tuple[str, ...]:
    if len(name) <= LONGEST_NAME:
        return ()
    return (f"the name has {len(name)} characters, which is too long; declared as {names[name]!r}",)


def _set_aside(seen: Survey, wishes: Wishes) -> dict[str, str]:
    reasons = dict.fromkeys(wishes.drop - {wishes.key}, "set by --drop")
    taken = (wishes.target, wishes.key, wishes.weight, KEY_FIELD)
    for name, tally in seen.tallies.items():
        if name in reasons or name in wishes.keep or name in taken:
            if name in wishes.keep and not tally.filled:
                raise CannotInfer(f"--keep: every cell of {name!r} is blank")
            continue
        reason = non_features.why_left_out(tally, seen.column(name))
        if reason:
            reasons[name] = reason
    return reasons


def _floats(seen: Survey, name: str) -> Floats:
    number = seen.tallies[name].number
    return np.array([number(cell) for cell in seen.column(name)], dtype=np.float64)


def _days(seen: Survey, name: str, column: Column) -> Floats:
    texts = [str(column.from_text(cell)) if cell else None for cell in seen.column(name)]
    codes = [np.nan if text is None else moments.code(text, column.moment_type) for text in texts]
    return np.array(codes, dtype=np.float64)


def _target_numbers(seen: Survey, name: str) -> Floats | None:
    """Returns a numeric target, or the position of each cell among two levels; else None."""
    tally = seen.tallies[name]
    if tally.is_numeric:
        return _floats(seen, name)
    if tally.distinct != 2:
        return None
    second = max(tally.counts)
    return np.array([float(cell == second) for cell in seen.column(name)])


def _leaks(seen: Survey, names: Sequence[str], aim: str, hints: list[str]) -> dict[str, str]:
    """Returns columns that determine the target -> the reason; a sum of all columns is only a hint."""
    truth, texts = _target_numbers(seen, aim), seen.column(aim)
    numeric = {name: _floats(seen, name) for name in names if seen.tallies[name].is_numeric}
    reasons: dict[str, str] = {}
    for name in names:
        reason = ""
        if name in numeric and truth is not None:
            reason = leaks.copies(numeric[name], truth)
        reason = reason or leaks.determines(seen.column(name), texts, one_to_one=name in numeric)
        if reason:
            reasons[name] = f"gives the target away: {reason}"
    if truth is not None and seen.tallies[aim].is_numeric:
        rest = {name: values for name, values in numeric.items() if name not in reasons}
        for parts, equation in leaks.sums(rest, truth).items():
            for name in parts:
                reasons.setdefault(name, f"gives the target away: {equation} = {aim} in every row")
        rest = {name: values for name, values in numeric.items() if name not in reasons}
        for parts, (explained, equation) in leaks.weighted(rest, truth).items():
            equation_text = f"{equation} is {aim}, or nearly (r² {explained:.4f})"
            if set(parts) >= set(names) - set(reasons):
                hints.append(f"SUSPICIOUS: {equation_text}: are these columns known before the target?")
                continue
            for name in parts:
                reasons.setdefault(name, f"gives the target away: {equation_text}")
    return reasons


def _suspicion(seen: Survey, name: str, column: Column, aim: str, task: Task) -> str:
    if column.type == "text":
        return ""
    if column.is_numeric:
        values = _floats(seen, name)
    elif column.is_temporal:
        values = _days(seen, name, column)
    else:
        places = {text: place for place, text in enumerate(sorted(seen.tallies[name].counts))}
        values = np.array([float(places.get(cell, -1)) for cell in seen.column(name)])
    is_regression = task == "regression"
    truth = _floats(seen, aim) if is_regression else np.array(seen.column(aim))
    return leaks.suspicion(values, truth, regression=is_regression)
