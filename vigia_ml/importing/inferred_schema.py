"""Infers the schema of an imported pipeline from a CSV and from what the pipeline knows of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from vigia_ml.declaration import Task
from vigia_ml.importing.description import Description, Original, loosened
from vigia_ml.importing.errors import NotImportable
from vigia_ml.importing.plans import Wishes
from vigia_ml.scaffold import target as targets
from vigia_ml.scaffold.csv_survey import CannotInfer, Survey
from vigia_ml.schema import Column, DatasetSchema, Seen
from vigia_ml.schema.column_stats import ColumnStats
from vigia_ml.schema.columns import Normalisation, written_name
from vigia_ml.schema.faults import clip, first_of
from vigia_ml.schema.row_keys import KEY_FIELD
from vigia_ml.schema.type_inference import (
    LISTED_LEVELS,
    canonical_levels,
    canonical_names,
    guess_column,
    room_for,
)

NORMALISATIONS: Final[tuple[Normalisation, ...]] = ("strip", "lower", "lower_snake")
TRUE_FALSE: Final = frozenset({"true", "false"})


@dataclass(frozen=True)
class Inferred:
    """A schema and its task, with remarks on the guesses."""

    schema: DatasetSchema
    task: Task
    notes: tuple[str, ...]


def infer(survey: Survey, description: Description, wishes: Wishes, target: str, key: str | None) -> Inferred:
    """Returns the schema: the pipeline's columns under their own names, the CSV's names as aliases.

    Raises
    ------
    NotImportable : a column is not in the CSV, or the target does not fit the model.
    """
    target = _in_header(survey, target, "--target")
    key = None if key is None else _in_header(survey, key, "--key")
    available = [name for name in survey.header if name and name not in (target, key, KEY_FIELD)]
    original = Original(description, available, wishes.columns)
    loose = {loosened(name): name for name in available}
    sources = {name: name if name in available else loose.get(loosened(name), "") for name in original.texts}
    lacking = [name for name, source in sources.items() if not source]
    taken = [name for name in lacking if loosened(name) in (loosened(target), loosened(key or target))]
    if taken:
        raise NotImportable(
            f"the pipeline was fitted on {clip(taken[0])!r}, which --target or --key names: it cannot be both"
        )
    if lacking:
        raise NotImportable(
            f"the pipeline was fitted on {first_of(list(map(repr, lacking)), 6)}, which the CSV lacks; it "
            f"has {first_of(list(map(repr, available)), 30)}"
        )
    columns, notes = [], []
    for name, source in sources.items():
        column = _column(survey, name, source, original)
        columns.append(column)
        missing = sorted(survey.tallies[source].words)
        if missing and column.type in ("category", "text"):
            notes.append(f"{name}: {first_of(list(map(repr, missing)), 4)} is taken for a text")
    try:
        aim = _target(survey, target, description)
    except CannotInfer as error:
        raise NotImportable(f"--target {target}: {error}") from error
    used = {*sources.values(), target, key}
    ignored = tuple(name for name in survey.header if name and name not in used and name != KEY_FIELD)
    if ignored:
        notes.append(f"columns of the CSV that the pipeline does not use: {first_of(ignored, 12)}")
    own_key = None if key in (None, KEY_FIELD) else key
    try:
        schema = DatasetSchema(tuple(columns), aim.column, own_key, ignored=ignored)
    except ValueError as error:
        raise NotImportable(str(error)) from error
    return Inferred(schema, aim.task, (*notes, *aim.remarks))


def _in_header(survey: Survey, name: str, option: str) -> str:
    name = written_name(name)
    if name in survey.header:
        return name
    near = [each for each in survey.header if loosened(each) == loosened(name)]
    if len(near) == 1:
        return near[0]
    raise NotImportable(
        f"{option}: the CSV has no column {clip(name)!r}; it has "
        f"{first_of(list(map(repr, survey.header)), 30)}"
    )


def _column(survey: Survey, name: str, source: str, original: Original) -> Column:
    tally, texts = survey.tallies[source], original.texts[name]
    aliases = () if source == name else (source,)
    try:
        guessed = guess_column(tally, survey.column(source), name, aliases).column
    except ValueError as error:
        raise NotImportable(f"column {clip(name)!r}: {error}") from error
    if name in original.numeric:
        if guessed.type in ("category", "text"):
            odd = first_of([repr(cell) for cell in tally.counts if cell][:3], 3)
            raise NotImportable(
                f"the pipeline knows {name!r} as a number, and the CSV holds texts such as {odd}: leave "
                "missing values blank, or name their words with --null WORD"
            )
        return guessed
    if name in original.words:
        longest = room_for(2 * tally.longest)
        bare = replace(guessed, type="text", levels=(), minimum=None, maximum=None, signs=(), example=None)
        return replace(bare, normalise="strip", max_length=longest)
    if texts is not None:
        return _category(
            tally, replace(guessed, type="category", minimum=None, maximum=None, signs=()), texts
        )
    if guessed.type == "boolean" and {cell.lower() for cell in tally.counts} - TRUE_FALSE:
        # pandas reads yes and no as texts, and so did the pipeline.
        levels = canonical_levels(tally.counts, "strip")
        return replace(guessed, type="category", levels=levels, normalise="strip", example=levels[0])
    if guessed.type in ("category", "text") and guessed.normalise != "strip":
        levels = canonical_levels(tally.counts, "strip") if guessed.levels else ()
        return replace(guessed, normalise="strip", levels=levels, example=None)
    return guessed


def _category(tally: ColumnStats, column: Column, texts: Sequence[str]) -> Column:
    """Returns a category whose levels have the pipeline's spelling."""
    normalise = max(NORMALISATIONS, key=lambda each: _covered(tally, texts, each))
    levels = tuple(
        sorted({*canonical_levels(tally.counts, normalise), *canonical_levels(texts, normalise)} - {""})
    )
    longest = room_for(max(map(len, (*levels, "")), default=0))
    is_listed = len(levels) <= LISTED_LEVELS
    return replace(
        column,
        levels=levels if is_listed else (),
        seen=None if is_listed else Seen(levels=levels),
        normalise=normalise,
        max_length=max(longest, room_for(tally.longest)),
        example=next((each for each in texts if each in levels), None),
        missing=tuple(word for word in column.missing if word not in levels),
    )


def _covered(tally: ColumnStats, texts: Sequence[str], normalise: Normalisation) -> tuple[bool, int]:
    """Returns whether the pipeline's texts are in this form, and how many cells are among them."""
    rule = Column("any", "category", normalise=normalise)
    known = set(texts)
    own_form = all(rule.canonical_text(text) == text for text in texts)
    return own_form, sum(times for cell, times in tally.counts.items() if rule.canonical_text(cell) in known)


def _target(survey: Survey, name: str, description: Description) -> targets.Target:
    tally = survey.tallies[name]
    targets.check(tally, survey.first_blank.get(name), skip_unlabelled=False)
    own = canonical_names([name])[name]
    aliases = () if own == name else (name,)
    if description.task == "regression":
        return targets.propose(tally, own, aliases, "regression")
    task: Task = "binary" if len(description.classes or ()) == 2 else "multiclass"
    return targets.propose(tally, own, aliases, task)
