"""Plans how a pipeline's own names, spelling, nulls and classes fit a schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vigia_ml.declaration import Task
from vigia_ml.importing.description import Description, Label, Original, matched
from vigia_ml.importing.errors import NotImportable
from vigia_ml.schema import Column, DatasetSchema
from vigia_ml.schema.columns import BadValue
from vigia_ml.schema.faults import clip, first_of
from vigia_ml.schema.matrix import levels_of


@dataclass(frozen=True)
class Wishes:
    """The user's options.

    columns : names of an array's columns, in order. fill : column of the schema -> text that replaces nulls.
    nulls : what a vectorizer gets for a null. classes : labels in the order of the model's classes.
    """

    columns: tuple[str, ...] | None = None
    fill: Mapping[str, str] = field(default_factory=dict)
    nulls: Literal["absent", "nan"] | None = None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Plan:
    """The way from rows of a schema to a pipeline's own rows; see `vigia_ml.transformers.original`.

    notes : sentences for the user.
    """

    names: dict[str, str]
    levels: dict[str, dict[str, str]]
    fill: dict[str, Any]
    nulls: str
    dicts: bool
    classes: tuple[Any, ...] | None
    order: tuple[int, ...] | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan(
    schema: DatasetSchema, task: Task, description: Description, wishes: Wishes, with_nulls: Sequence[str]
) -> Plan:
    """Returns the plan for a schema.

    Parameters
    ----------
    with_nulls : columns in which the rows have nulls.

    Raises
    ------
    NotImportable : says what does not fit, and what to do.
    """
    check_task(task, description)
    available = [name for column in schema.columns for name in (column.name, *column.aliases)]
    original = Original(description, available, wishes.columns)
    names = matched(original.texts, schema)
    dicts = description.features is not None
    levels: dict[str, dict[str, str]] = {}
    notes = []
    for name, own in names.items():
        column, texts = schema.by_name[name], original.texts[own]
        is_text = column.type in ("category", "text")
        if texts and not is_text:
            raise NotImportable(
                f"the pipeline knows texts of {own!r}, such as {texts[0]!r}, and the model declares "
                f"{name} as {column.type}"
            )
        if own in original.numeric and is_text:
            raise NotImportable(
                f"the pipeline knows numbers of {own!r}, and the model declares {name} as {column.type}"
            )
        if texts and column.type == "category":
            spelling, remark = _spelling(column, texts)
            if spelling:
                levels[name] = spelling
            notes += remark
    unused = [name for name in schema.names if name not in names]
    if unused:
        notes.append(f"the pipeline does not use {first_of(unused, 8)}")
    fill = {name: _fill(schema, name, text) for name, text in wishes.fill.items()}
    nulls = _nulls(description, wishes, [name for name in with_nulls if name in names and name not in fill])
    if dicts and nulls == "absent" and (left := [n for n in with_nulls if n in names and n not in fill]):
        notes.append(f"nulls of {first_of(left, 8)} are left out of the dict, which counts them as 0")
    classes, order = (None, None) if task == "regression" else _classes(schema.target, description, wishes)
    return Plan(names, levels, fill, nulls, dicts, classes, order, tuple(notes))


def check_task(task: Task, description: Description) -> None:
    """Raises `NotImportable` where a model of classes and one of numbers meet."""
    wanted = "regression" if task == "regression" else "classification"
    if description.task == wanted:
        return
    theirs, ours = ("classes", "a number") if wanted == "regression" else ("a number", "classes")
    raise NotImportable(
        f"the file holds {description.estimator}, which predicts {theirs}, and the model predicts {ours}: "
        "import it under another name, or check the target"
    )


def _spelling(column: Column, texts: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Returns {level of the schema: the pipeline's text} where they differ, and remarks."""
    table: dict[str, str] = {}
    for text in texts:
        level = column.canonical_text(text)
        if table.get(level, text) != text and level not in (text, table[level]):
            raise NotImportable(
                f"the pipeline knows {table[level]!r} and {text!r} of {column.name}, which the model reads "
                "as one level"
            )
        if level not in table or level == text:
            table[level] = text
    levels = levels_of(column)
    if levels and not set(levels) & set(table):
        raise NotImportable(
            f"none of the texts that the pipeline knows of {column.name} "
            f"({first_of(list(map(repr, texts)), 4)}) is one of the model's levels "
            f"({first_of(list(map(repr, levels)), 4)})"
        )
    remarks = []
    if unknown := [level for level in levels if level not in table]:
        remarks.append(f"the pipeline does not know {first_of(list(map(repr, unknown)), 6)} of {column.name}")
    if more := [text for level, text in table.items() if column.levels and level not in column.levels]:
        remarks.append(f"the model does not accept {first_of(list(map(repr, more)), 6)} of {column.name}")
    return {level: text for level, text in table.items() if level != text and level in levels}, remarks


def _fill(schema: DatasetSchema, name: str, text: str) -> Any:
    column = schema.find(name)
    if column is None or column.name != name:
        raise NotImportable(
            f"--fill: the model has no column {clip(name)!r}; it has {first_of(list(schema.names), 30)}"
        )
    try:
        value = column.from_text(text)
    except BadValue as bad:
        raise NotImportable(f"--fill {name}={clip(text)}: {bad.fault.message}") from None
    if value is None:
        raise NotImportable(f"--fill {name}: name a value, not a null")
    return float(value) if not isinstance(value, str) else value


def _nulls(description: Description, wishes: Wishes, with_nulls: Sequence[str]) -> str:
    if description.features is None:
        if wishes.nulls is not None:
            raise NotImportable(
                "--nulls is for a DictVectorizer; for other pipelines use --fill COLUMN=VALUE"
            )
        return "nan"
    if wishes.nulls is not None:
        return wishes.nulls
    if with_nulls and description.takes_nan:
        raise NotImportable(
            f"{first_of(with_nulls, 6)} has nulls, and the model accepts NaN, so only its author knows what "
            "it was fitted on. Pass --nulls nan if nulls were NaN in the dicts, --nulls absent if they were "
            "left out of them or set to 0, or --fill COLUMN=VALUE for another value"
        )
    return "absent"


# -- classes -------------------------------------------------------------------------------------------


def _classes(
    target: Column, description: Description, wishes: Wishes
) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """Returns the target's labels in order, and the position among the model's classes of each."""
    theirs = description.classes or ()
    expected = (False, True) if target.type == "boolean" else target.levels
    given: Sequence[Label] = wishes.classes or description.labels or theirs
    if len(given) != len(theirs):
        raise NotImportable(f"--classes names {len(given)} labels, and the model has {len(theirs)} classes")
    labels = [label_of(target, each) for each in given]
    shown = f"the model's classes are {_shown(theirs)}, and those of {target.name} are {_shown(expected)}"
    if None in labels or len(set(labels)) < len(labels):
        raise NotImportable(f"{shown}: name the labels in the order of the model's classes: --classes a,b,…")
    if set(labels) != set(expected):
        raise NotImportable(f"{shown}: the model must know each of them, and no other")
    return tuple(expected), tuple(labels.index(each) for each in expected)


def label_of(target: Column, label: Label) -> str | bool | None:
    """Returns the target's value for a class of the model; None if it is not one."""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if target.type == "boolean":
        try:
            value = target.from_json(label)
        except BadValue:
            return None
        return value if isinstance(value, bool) else None
    text = target.canonical_text(str(label).lower() if isinstance(label, bool) else str(label))
    return text if text in target.levels else None


def _shown(labels: Sequence[Any]) -> str:
    return first_of([repr(each) for each in labels], 8)
