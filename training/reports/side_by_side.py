"""Versions side by side: their metrics, and the differences that a switch would bring."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training import providers
from training.models import ModelVersion, RegisteredModel
from training.providers import ModelProvider
from training.registry import declarations
from vigia_ml.declaration import SMALLER_IS_BETTER, ModelDeclaration
from vigia_ml.schema import Column, DatasetSchema

Metrics = Mapping[str, float]

_SHOWN_ATTRIBUTES = (
    ("type", "type"),
    ("unit", "unit"),
    ("nullable", "may be empty"),
    ("levels", "levels"),
    ("minimum", "minimum"),
    ("maximum", "maximum"),
    ("aliases", "aliases"),
    ("normalise", "normalised by"),
    ("max_length", "maximum length"),
    ("missing", "words for a missing value"),
    ("signs", "ignored signs"),
    ("format", "form of dates"),
)


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric of several versions.

    values : one per version; None where the version does not report the metric.
    best : positions of the best value; empty unless several versions report the metric and differ.
    """

    name: str
    values: tuple[float | None, ...]
    best: frozenset[int]
    smaller_is_better: bool
    primary: bool

    @property
    def difference(self) -> float | None:
        """The last version's value minus the first one's."""
        first, last = self.values[0], self.values[-1]
        return None if first is None or last is None else last - first

    @property
    def improves(self) -> bool | None:
        """Whether the last version is better than the first; None when equal or unknown."""
        change = self.difference
        return None if not change else (change < 0) == self.smaller_is_better


@dataclass(frozen=True, slots=True)
class Change:
    name: str
    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Switch:
    """The differences between the active version `before` (None: no version is active) and `after`."""

    before: ModelVersion | None
    after: ModelVersion
    metrics: list[MetricRow]
    same_holdout: bool
    schema: list[Change]
    libraries: list[Change]


def declaration(model: RegisteredModel) -> ModelDeclaration | ModelProvider | None:
    """Returns the model's provider or its declaration; None when the declaration was removed."""
    return providers.find(model.name) or declarations.find(model)


def primary_metric(model: RegisteredModel) -> str | None:
    """Returns the primary metric of a model; for a provider's model, that of its active version."""
    declared = declaration(model)
    if isinstance(declared, ModelProvider):
        active = model.active_version
        return declared.primary_of(active.metrics if active else {})
    return declared.primary_metric if declared else None


def metric_rows(model: RegisteredModel, columns: Sequence[Metrics]) -> list[MetricRow]:
    """Returns the metrics of several versions as rows, in the declared order, the primary metric first."""
    declared = declaration(model)
    primary = primary_metric(model) or ""
    names = list(declared.metrics) if declared else []
    names += sorted({name for column in columns for name in column} - set(names))
    names.sort(key=lambda name: name != primary)  # a stable sort: only the primary metric moves
    rows = []
    for name in names:
        values = tuple(column.get(name) for column in columns)
        known = [value for value in values if value is not None]
        if not known:
            continue
        smaller_is_better = name in SMALLER_IS_BETTER or (
            isinstance(declared, ModelProvider) and name in declared.smaller_is_better
        )
        top = min(known) if smaller_is_better else max(known)
        differ = len(known) > 1 and min(known) != max(known)
        best = frozenset(at for at, value in enumerate(values) if differ and value == top)
        rows.append(MetricRow(name, values, best, smaller_is_better, name == primary))
    return rows


def switch(before: ModelVersion | None, after: ModelVersion) -> Switch:
    """Returns the differences that a switch from `before` to `after` would bring.

    If the gate of `after` compared it with `before`, both metrics come from one hold-out. Otherwise each
    version's metrics come from its own hold-out, and `same_holdout` is False.
    """
    if before is None:
        metrics = metric_rows(after.registered_model, [{}, after.metrics])
        return Switch(None, after, metrics, same_holdout=False, schema=[], libraries=[])
    judged = after.gate.get("active_metrics") if after.gate.get("compared_with") == before.number else None
    same_rows = before.dataset_id == after.dataset_id and before.seed == after.seed
    return Switch(
        before,
        after,
        metric_rows(after.registered_model, [judged or before.metrics, after.metrics]),
        same_holdout=bool(judged) or same_rows,
        schema=schema_changes(before.dataset_schema, after.dataset_schema),
        libraries=mapping_changes(before.libraries, after.libraries),
    )


def schema_changes(before: DatasetSchema, after: DatasetSchema) -> list[Change]:
    """Returns the columns that were added, removed or changed, those of target and weight included."""
    old = {column.name: column for column in before.stored()}
    new = {column.name: column for column in after.stored()}
    changes = [Change(name, "removed", described(old[name]), "") for name in old if name not in new]
    changes += [Change(name, "added", "", described(new[name])) for name in new if name not in old]
    for name in old.keys() & new.keys():
        changes += _column_changes(old[name], new[name])
    return sorted(changes, key=lambda change: (change.what not in ("added", "removed"), change.name))


def _column_changes(before: Column, after: Column) -> list[Change]:
    return [
        Change(before.name, label, plain(getattr(before, name)), plain(getattr(after, name)))
        for name, label in _SHOWN_ATTRIBUTES
        if getattr(before, name) != getattr(after, name)
    ]


def mapping_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Returns the entries that differ, such as versions of libraries."""
    names = sorted(before.keys() | after.keys())
    return [
        Change(name, "changed", plain(before.get(name, "")), plain(after.get(name, "")))
        for name in names
        if before.get(name) != after.get(name)
    ]


def lineage_changes(before: ModelVersion, after: ModelVersion) -> list[Change]:
    """Returns the differences in lineage: rows, split, parameters, code, libraries, users."""
    old, new = _lineage(before), _lineage(after)
    return mapping_changes(old, new) + mapping_changes(before.libraries, after.libraries)


def chosen(version: ModelVersion) -> dict[str, Any]:
    """Returns the hyper-parameters that a search chose, without its trials; empty: the declared ones."""
    settings: dict[str, Any] = version.parameters.get("chosen", version.parameters)
    return settings


def _lineage(version: ModelVersion) -> dict[str, Any]:
    lineage, settings = version.lineage, chosen(version)
    return {
        "artifact": lineage["artifact_sha256"],
        "code version": lineage["code_version"],
        "dataset": lineage["dataset_sha256"],
        "dataset rows": lineage["dataset_rows"],
        "engine": version.engine,
        "hold-out rows": version.holdout_rows,
        "origin": version.get_origin_display(),
        "parameters": json.dumps(settings, sort_keys=True) if settings else "as declared",
        "schema": lineage["schema_sha256"],
        "seed": lineage["seed"],
        "source of the rows": version.dataset.source,
        "threshold": version.threshold,
        "trained at": lineage["trained_at"].isoformat(timespec="seconds"),
        "trained by": lineage["trained_by"] or "the service",
        "training rows": version.train_rows,
        "training run": lineage["training_run"],
    }


def described(column: Column) -> str:
    words: list[str] = [column.type]
    if column.unit:
        words.append(f"in {column.unit}")
    if column.levels:
        words.append(f"({', '.join(column.levels)})")
    limits = bounds(column)
    if limits:
        words.append(limits)
    if column.nullable:
        words.append("may be empty")
    return " ".join(words)


def bounds(column: Column) -> str:
    """Returns the declared bounds of a number or date as text; empty without bounds."""
    if column.minimum is not None and column.maximum is not None:
        return f"{plain(column.minimum)} to {plain(column.maximum)}"
    if column.minimum is not None:
        return f"at least {plain(column.minimum)}"
    return f"at most {plain(column.maximum)}" if column.maximum is not None else ""


def training_range(column: Column) -> str:
    """Returns the range or the number of levels that the training data held in a column, as text."""
    if column.seen is None:
        return ""
    low, high = column.seen.minimum, column.seen.maximum
    if low is not None and high is not None:
        return f"{plain(column.shown(low))} to {plain(column.shown(high))}"
    count = len(column.seen.levels)
    return f"{count:,} levels" if count else ""


def plain(value: object) -> str:
    """Returns a value as text for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return ", ".join(str(item) for item in value)
    if isinstance(value, (int, float)):
        if not float(value).is_integer():
            return f"{value:,.6g}"
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.0f}"  # a year stays a year
    return "" if value is None else str(value)
