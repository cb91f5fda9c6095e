"""The target's column and the task it makes, with what had to be chosen said in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from training.declaration import Task
from training.scaffold.survey import CannotInfer
from training.schema.columns import FALSE_WORDS, TRUE_WORDS, Column
from training.schema.inference import canonical_levels, normalisation, room_for
from training.schema.tally import Tally

MOST_CLASSES: Final = 20
MOST_CLASSES_ASKED: Final = 200
ROWS_PER_CLASS: Final = 5
LABELS: Final = 5  # whole numbers 0, 1, 2… up to so many are taken for labels, more for a quantity
FEWEST_ROWS: Final = 30


@dataclass(frozen=True)
class Target:
    """The target as declared, the task, and what was guessed about both."""

    column: Column
    task: Task
    remarks: tuple[str, ...]


def check(tally: Tally, first_blank: int | None) -> None:
    """Raise `CannotInfer` for a target nothing can be learned from."""
    name = tally.name
    if tally.rows < FEWEST_ROWS:
        raise CannotInfer(f"{tally.rows} rows are too few: send at least {FEWEST_ROWS}, better some hundreds")
    if tally.blanks:
        are = "row has" if tally.blanks == 1 else "rows have"
        where = f" (first on line {first_blank})" if first_blank else ""
        raise CannotInfer(
            f"{tally.blanks:,} {are} a blank target {name!r}{where}: remove such rows, they teach nothing"
        )
    if tally.distinct == 1:
        value = next(iter(tally.counts))
        raise CannotInfer(f"the target {name!r} is {value[:40]!r} in every row: there is nothing to learn")


def propose(tally: Tally, name: str, aliases: tuple[str, ...], asked: Task | None) -> Target:
    """The target's declaration.

    Parameters
    ----------
    name : canonical name. aliases : other names. asked : the task when the user said so.

    Raises
    ------
    CannotInfer : when the column does not fit the task, or fits none.
    """
    task, why = (asked, "as asked") if asked else _guess_task(tally)
    if task == "regression":
        if not tally.is_numeric:
            odd = next(iter((*tally.odd.get("text", []), *tally.odd.get("date", []), *tally.counts)))
            raise CannotInfer(f"a regression needs a target of numbers, {tally.name!r} holds {odd[:40]!r}")
        column = Column(name, "integer" if tally.is_whole else "number", aliases=aliases)
        what = "whole numbers" if tally.is_whole else "numbers"
        return Target(column, task, (f"{what} from {tally.minimum:.6g} to {tally.maximum:.6g}", why))
    if task == "binary":
        return _binary(tally, name, aliases, why)
    return _multiclass(tally, name, aliases, why)


def _guess_task(tally: Tally) -> tuple[Task, str]:
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


def _binary(tally: Tally, name: str, aliases: tuple[str, ...], why: str) -> Target:
    texts = {text.lower() for text in tally.counts}
    if texts <= {*TRUE_WORDS, *FALSE_WORDS} and _has_both(texts):
        said = f"{', '.join(sorted(tally.counts))} read as no and yes; answers are true and false"
        return Target(Column(name, "boolean", aliases=aliases), "binary", (said, why))
    normalise = normalisation(tally.counts)
    levels = canonical_levels(tally.counts, normalise)
    if len(levels) != 2:
        raise CannotInfer(f"a binary target has two values, {tally.name!r} has {len(levels):,}")
    column = Column(
        name,
        "category",
        levels=levels,
        aliases=aliases,
        normalise=normalise,
        max_length=room_for(tally.longest),
    )
    positive = f"the probability answered is that of the second level, {levels[1][:60]!r}"
    return Target(column, "binary", (positive, *_as_text(tally), why))


def _has_both(words: set[str]) -> bool:
    return bool(words & set(TRUE_WORDS)) and bool(words & set(FALSE_WORDS))


def _multiclass(tally: Tally, name: str, aliases: tuple[str, ...], why: str) -> Target:
    if tally.distinct > MOST_CLASSES_ASKED:
        raise CannotInfer(f"{tally.distinct:,} classes in {tally.name!r} are too many for one model here")
    normalise = normalisation(tally.counts)
    levels = canonical_levels(tally.counts, normalise)
    if len(levels) < 2:
        raise CannotInfer(f"the target {tally.name!r} has one level only, once case does not count")
    column = Column(
        name,
        "category",
        levels=levels,
        aliases=aliases,
        normalise=normalise,
        max_length=room_for(tally.longest),
    )
    return Target(column, "multiclass", (f"{len(levels)} classes", *_as_text(tally), why))


def _as_text(tally: Tally) -> tuple[str, ...]:
    if not tally.is_numeric:
        return ()
    label = next(iter(tally.counts))
    return (f'labels are text, although they look like numbers: JSON says "{label}", not {label}',)
