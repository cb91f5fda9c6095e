"""Proposes the target's column and the task, with remarks on each choice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from vigia_ml.declaration import Task
from vigia_ml.scaffold.csv_survey import CannotInfer
from vigia_ml.schema.column_stats import ColumnStats, are_flags
from vigia_ml.schema.columns import Column
from vigia_ml.schema.type_inference import canonical_levels, normalisation, null_options, room_for

MOST_CLASSES: Final = 20
MOST_CLASSES_ASKED: Final = 200
ROWS_PER_CLASS: Final = 5
LABELS: Final = 5  # at most this many whole numbers 0, 1, 2… count as labels, more as a quantity
FEWEST_ROWS: Final = 30
PLAUSIBLE_CLASSES: Final = frozenset(("none", "nil", "-", "--", "."))


@dataclass(frozen=True)
class Target:
    """The target's declaration, the task, and remarks on both."""

    column: Column
    task: Task
    remarks: tuple[str, ...]


class Unlabelled(CannotInfer):
    """Raised when rows have no target; the user may leave them out."""


def check(tally: ColumnStats, first_blank: int | None, *, skip_unlabelled: bool) -> None:
    """Raises `CannotInfer` if the target cannot be learned."""
    name = tally.name
    if tally.blanks and not skip_unlabelled and tally.filled:
        are = "row has" if tally.blanks == 1 else "rows have"
        where = f" (first on line {first_blank})" if first_blank else ""
        words = "".join(f", {word!r} in {times:,}" for word, times in sorted(tally.missing.items()))
        raise Unlabelled(f"{tally.blanks:,} {are} a blank target {name!r}{where}{words}: remove these rows")
    if tally.filled < FEWEST_ROWS:
        labelled = " with a target" if tally.blanks else ""
        raise CannotInfer(
            f"{tally.filled} rows{labelled} are too few: send at least {FEWEST_ROWS}, better some hundreds"
        )
    if tally.distinct == 1:
        value = next(iter(tally.counts))
        raise CannotInfer(f"the target {name!r} is {value[:40]!r} in every row: there is nothing to learn")


def propose(tally: ColumnStats, name: str, aliases: tuple[str, ...], requested: Task | None) -> Target:
    """Proposes the target's declaration.

    Parameters
    ----------
    name : canonical name. aliases : other names. requested : the user's task, or None.

    Raises
    ------
    CannotInfer : when the column does not fit the task, or no task.
    """
    target = _propose(tally, name, aliases, requested)
    signs = tuple(sorted(tally.signs)) if target.column.is_numeric else ()
    column = replace(target.column, missing=tuple(sorted(tally.missing)), signs=signs)
    written = f"written with {', '.join(map(repr, signs))}, which is removed"
    unlabelled = f"{tally.blanks:,} rows without a target are left out"
    remarks = [*([written] if signs else []), *([unlabelled] if tally.blanks else []), *target.remarks]
    return Target(column, target.task, tuple(remarks))


def _propose(tally: ColumnStats, name: str, aliases: tuple[str, ...], requested: Task | None) -> Target:
    if requested is None:
        _check_words(tally)
    task, reason = (requested, "set by --task") if requested else _guess_task(tally)
    if task == "regression":
        if not tally.is_numeric:
            odd = next(iter((*tally.odd.get("text", []), *tally.odd.get("date", []), *tally.counts)))
            raise CannotInfer(f"a regression needs a target of numbers, {tally.name!r} holds {odd[:40]!r}")
        column = Column(name, "integer" if tally.is_whole else "number", aliases=aliases)
        kind = "whole numbers" if tally.is_whole else "numbers"
        return Target(column, task, (f"{kind} from {tally.minimum:.6g} to {tally.maximum:.6g}", reason))
    if task == "binary" and are_flags(tally.counts):
        reading = f"{', '.join(sorted(tally.counts))} read as no and yes; answers are true and false"
        return Target(Column(name, "boolean", aliases=aliases), task, (reading, reason))
    return _of_classes(tally, name, aliases, task, reason)


def _check_words(tally: ColumnStats) -> None:
    """Raises `CannotInfer` if a word among the classes probably stands for a missing value."""
    words = [word for word in tally.words if word.lower() not in PLAUSIBLE_CLASSES]
    if words:
        rows = sum(tally.words[word] for word in words)
        task = "binary" if tally.distinct == 2 else "multiclass"
        raise CannotInfer(
            f"the target {tally.name!r} holds {', '.join(map(repr, sorted(words)))} in {rows:,} "
            f"{'row' if rows == 1 else 'rows'}: {null_options(words)} reads it as missing, "
            f"--task {task} takes it as a class"
        )


def _guess_task(tally: ColumnStats) -> tuple[Task, str]:
    if tally.is_flag or tally.distinct == 2:
        return "binary", "two different values"
    if tally.is_whole and tally.distinct <= 10:
        low, high = int(tally.minimum), int(tally.maximum)
        named = f"ambiguous: only {tally.distinct} whole numbers, {low} to {high}"
        if low in (0, 1) and tally.distinct <= LABELS and high - low + 1 == tally.distinct:
            return "multiclass", f"{named}, taken for labels (--task regression if they are a quantity)"
        return "regression", f"{named}, taken for a quantity (--task multiclass if they are labels)"
    if tally.is_numeric:
        return "regression", "a quantity"
    few = tally.distinct <= MOST_CLASSES and tally.distinct * ROWS_PER_CLASS <= tally.rows
    if not few:
        raise CannotInfer(
            f"the target {tally.name!r} holds {tally.distinct:,} different texts in {tally.rows:,} rows: "
            "neither numbers nor classes (--task multiclass if they are classes all the same)"
        )
    return "multiclass", f"{tally.distinct} different texts"


def _of_classes(tally: ColumnStats, name: str, aliases: tuple[str, ...], task: Task, reason: str) -> Target:
    if task == "multiclass" and tally.distinct > MOST_CLASSES_ASKED:
        raise CannotInfer(
            f"{tally.distinct:,} classes in {tally.name!r} are too many; at most {MOST_CLASSES_ASKED} fit"
        )
    normalise = normalisation(tally.counts)
    levels = canonical_levels(tally.counts, normalise)
    if task == "binary" and len(levels) != 2:
        raise CannotInfer(f"a binary target has two values, {tally.name!r} has {len(levels):,}")
    if len(levels) < 2:
        raise CannotInfer(f"the target {tally.name!r} has only one level when case is ignored")
    column = Column(
        name,
        "category",
        levels=levels,
        aliases=aliases,
        normalise=normalise,
        max_length=room_for(tally.longest),
    )
    remarks = [
        f"predictions have the probability of the second level, {levels[1][:60]!r}"
        if task == "binary"
        else f"{len(levels)} classes"
    ]
    if tally.words:
        words = ", ".join(map(repr, sorted(tally.words)))
        remarks.append(f"{words} is a class ({null_options(tally.words)}: missing)")
    if tally.is_numeric:
        label = next(iter(tally.counts))
        remarks.append(f'labels are text, although they look like numbers: JSON says "{label}", not {label}')
    return Target(column, task, (*remarks, reason))
