"""The model card of a version, in Markdown.

Sections after Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. The card's text comes from the
version's row, its dataset, its activations and the catalogue's declaration; nothing is written by hand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from django.contrib.auth.models import User

from training import providers
from training.models import ModelVersion, sharing_versions
from training.reports import sections, side_by_side
from vigia_ml import notes

_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>|~&#])")
_BREAKS: Final = re.compile(r"[\s\x00-\x1f\x7f\x85\u2028\u2029]+")
CONTENT_TYPE: Final = "text/markdown; charset=utf-8"
IMPORTANT_COLUMNS: Final = 10
MOST_ACTIVATIONS: Final = 50


def markdown(version: ModelVersion) -> str:
    """Returns the card, ending in a line break; texts of clients and files are escaped."""
    parts = [
        _head(version),
        _use(version),
        _columns(version),
        _training_data(version),
        _evaluation_data(version),
        _metrics(version),
        _pictures(version),
        _slices(version),
        _gate(version),
        _engine(version),
        _caveats(version),
        _lineage(version),
        _activations(version),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def file_name(version: ModelVersion) -> str:
    return f"{version.registered_model.name}-{version.number}.md"


def escaped(text: Any) -> str:
    """Returns a text as one escaped line of Markdown, which cannot break a table or start markup or HTML."""
    line = _BREAKS.sub(" ", str(text)).strip()
    return _SPECIAL.sub(r"\\\1", line)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a pipe table with escaped cells and numbers of about five digits."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100_000 else f"{value:.5g}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M UTC")
    return escaped(value) or "–"


def _section(title: str, *blocks: str) -> str:
    return "\n\n".join([f"## {title}", *filter(None, blocks)])


def _user(user: User | None) -> str:
    return user.get_username() if user else "the service"


def _head(version: ModelVersion) -> str:
    model = version.registered_model
    declared = side_by_side.declaration(model)
    facts = [
        ("registered model", model.name),
        ("version", version.number),
        ("status", version.status),
        ("kind", declared.task if declared else None),
        ("target", side_by_side.described(version.dataset_schema.target)),
        *([("rows weighted by", weight)] if (weight := version.dataset_schema.weight) else []),
        ("origin", version.get_origin_display()),
        (f"{version.origin} at", version.created_at),
        (f"{version.origin} by", _user(version.created_by)),
        ("artifact (SHA-256)", version.artifact_sha256),
    ]
    return f"# {escaped(model.title)}, version {version.number}\n\n{table(['', ''], facts)}"


def _use(version: ModelVersion) -> str:
    declared = side_by_side.declaration(version.registered_model)
    target = version.dataset_schema.target
    purpose = "The model's declaration was removed, so its purpose is unknown."
    if declared:
        purpose = escaped(declared.description)
    answer = f"The model predicts {escaped(target.name)}"
    if target.unit:
        answer += f" in {escaped(target.unit)}"
    if version.threshold is not None:
        answer += f"; a probability of {version.threshold:g} or more means true"
    outside = (
        "Out of scope: rows with values outside the table below. The service answers values that the "
        "training data did not hold with a warning, and rejects values outside the accepted bounds."
    )
    return _section("Intended use", purpose, f"{answer}.", outside)


def _columns(version: ModelVersion) -> str:
    rows = []
    for column in version.dataset_schema.columns:
        accepted = ", ".join(column.levels) or side_by_side.bounds(column)
        kind = f"{column.type}{f' in {column.unit}' if column.unit else ''}"
        empty, seen = "yes" if column.nullable else "no", side_by_side.training_range(column)
        rows.append([column.name, kind, empty, accepted, seen, column.description])
    header = ["column", "type", "may be empty", "accepted", "in the training data", "meaning"]
    return _section("Inputs", table(header, rows))


def _training_data(version: ModelVersion) -> str:
    rows = version.dataset
    facts = [
        ("rows", rows.rows),
        ("training rows", version.train_rows),
        ("SHA-256", rows.sha256),
        ("stored at", rows.created_at),
        ("stored by", _user(rows.created_by)),
        ("source", rows.source),
        ("schema (SHA-256)", version.schema_sha256),
    ]
    return _section("Training data", table(["", ""], facts))


def _evaluation_data(version: ModelVersion) -> str:
    provider = providers.find(version.registered_model.name)
    if provider is not None:
        return _section("Evaluation data", provider.judged_on)
    evaluation = version.evaluation or {}
    split = evaluation.get("split") or {}
    share = f", share {split['share']:g}" if split else ""
    description = (
        f"{version.holdout_rows:,} rows of the same dataset, held out by a hash of their features (seed "
        f"{version.seed}{share}): rows with equal features are on one side, and a row keeps "
        "its side when rows are added."
    )
    if split.get("method") == "by_row":
        description = (
            f"{version.holdout_rows:,} rows of the same dataset, held out by a hash of the row (seed "
            f"{version.seed}{share}; split: by_row): distinct feature rows are few or one is very common, so "
            "training part and hold-out both hold copies of a row in proportion."
        )
    if split.get("method") == "given":
        description = (
            f"{version.holdout_rows:,} rows, the last of the dataset: the graph was evaluated here, on the "
            "rows that came with it. This service did not choose them and cannot know whether the pipeline "
            "was fitted on some of them."
        )
    dropped = evaluation.get("duplicates_dropped") or 0
    repeated = " ".join(
        note.message + "." for note in notes.of_rows(version.dataset.rows, dropped, dropped, None)
    )
    if dropped > notes.LOUD * version.dataset.rows:
        repeated = f"**{escaped(repeated)}**"
    return _section("Evaluation data", description, repeated)


def _metrics(version: ModelVersion) -> str:
    evaluation = version.evaluation or {}
    intervals = evaluation.get("intervals") or {}
    rows = []
    for row in side_by_side.metric_rows(version.registered_model, [version.metrics, version.baseline]):
        value, baseline = row.values
        better = "smaller is better" if row.smaller_is_better else "larger is better"
        name = f"{row.name} (primary)" if row.primary else row.name
        interval = " to ".join(map(_cell, intervals.get(row.name) or ()))
        rows.append([name, value, interval, baseline, better])
    confidence = evaluation.get("confidence")
    uncertainty = (
        f"Intervals hold the middle {confidence:.0%} of {evaluation['resamples']} bootstrap resamples of the "
        "hold-out (Efron 1979): the variation between hold-outs of this size; variation between trainings is "
        "not included."
        if confidence and evaluation.get("resamples")
        else ""
    )
    header = ["metric", "value", "interval", "baseline", ""]
    provider = providers.find(version.registered_model.name)
    baseline_note = "The baseline ignores the inputs: it answers with the mean or the class shares."
    if provider is not None:
        baseline_note = provider.baseline_is
    return _section("Metrics", table(header, rows), uncertainty, baseline_note)


def _pictures(version: ModelVersion) -> str:
    """Returns the confusions or errors, and importances; for a provider's model, all measurements."""
    evaluation = version.evaluation or {}
    if providers.find(version.registered_model.name) is not None:
        return _section(
            "Quantitative analyses", *(_facts(section) for section in sections.sections(evaluation))
        )
    blocks = []
    if confusion := evaluation.get("confusion"):
        labels = confusion["labels"]
        rows = [[label, *counts] for label, counts in zip(labels, confusion["counts"], strict=True)]
        blocks.append(table(["actual ↓ predicted →", *map(escaped, labels)], rows))
    if residuals := evaluation.get("residuals"):
        absolute = residuals.get("absolute") or {}
        rows = [
            [f"error of {float(share):.0%} of the rows at most", value] for share, value in absolute.items()
        ]
        blocks.append(table(["", "in the target's unit"], rows))
    if (importance := evaluation.get("importance")) and importance["columns"]:
        shown = importance["columns"][:IMPORTANT_COLUMNS]
        blocks.append(
            f"Permutation importance: the loss of {escaped(importance['metric'])} when a column's values are "
            f"shuffled among {importance['rows']:,} rows. Correlated columns share their importance."
        )
        blocks.append(table(["column", "loss"], [[item["column"], item["mean"]] for item in shown]))
    return _section("Quantitative analyses", *blocks) if blocks else ""


def _facts(section: sections.Section) -> str:
    shown = table(section.header, section.rows) if section.rows else table(["", ""], section.pairs)
    return f"### {escaped(section.title)}\n\n{shown}" if section.title else shown


def _slices(version: ModelVersion) -> str:
    slices = (version.evaluation or {}).get("slices") or []
    if not slices:
        return ""
    names = [row.name for row in side_by_side.metric_rows(version.registered_model, [version.metrics])]
    rows = []
    for item in slices:
        values = [item["metrics"].get(name) for name in names]
        rows.append([f"{item['column']} = {item['level']}", item["rows"], *values, item["not_judged"]])
    header = ["slice of the hold-out", "rows", *map(escaped, names), "too few rows to judge"]
    return _section("Factors", table(header, rows))


def _gate(version: ModelVersion) -> str:
    verdict = "passed" if version.gate.get("passed") else "**not passed**"
    rows = []
    for check in version.gate.get("checks", []):
        passed = "passed" if check["passed"] else "failed"
        rows.append([check["name"], passed, check["value"], check["threshold"], check["message"]])
    other = version.gate.get("compared_with")
    comparison = (
        f"The gate compared this version with version {other}, active then, on this version's hold-out."
        if other
        else ""
    )
    checks = table(["check", "verdict", "value", "threshold", "message"], rows) if rows else ""
    return _section("Gate", f"The gate is {verdict}.", checks, comparison)


def _engine(version: ModelVersion) -> str:
    shown: list[tuple[str, Any]] = [("engine", version.engine), ("reason", version.engine_reason)]
    pipeline = "scikit-learn" if version.origin == "trained" else "the owner's pipeline (answers in the push)"
    if parity := version.parity:
        shown += [
            (f"same answers as {pipeline}", "yes" if parity["passed"] else "no"),
            (f"largest {parity['measure']} difference", parity["worst"]),
            ("tolerance", parity["tolerance"]),
            ("rows compared", parity["rows"]),
        ]
    if (latency := (version.evaluation or {}).get("latency")) and "calls" in latency:
        shown += [
            ("one row, median (ms)", latency["median_ms"]),
            ("one row, 95th percentile (ms)", latency["p95_ms"]),
            ("measured calls", latency["calls"]),
        ]
    return _section("Engine", table(["", ""], shown))


def _caveats(version: ModelVersion) -> str:
    caveats = [
        "The metrics hold for rows drawn as the dataset's rows were, not for other times or groups.",
        "Importances and slices describe this model on this data; they do not show causes.",
    ]
    if not version.gate.get("passed"):
        caveats.append("The version did not pass its gate.")
    caveats += [f"Warning: {escaped(note.message)}." for note in notes.of_gate(version.gate)]
    caveats += [
        f"Warning: {escaped(note['message'])}."
        for note in version.run.notes
        if note["code"] == "rows_in_dataset" and note["level"] == "warning"
    ]
    if version.holdout_rows < 200:
        caveats.append(f"The hold-out is small ({version.holdout_rows} rows): read the intervals.")
    if not version.evaluation:
        caveats.append(
            "The version is older than stored evaluations: intervals, curves and slices are missing."
        )
    return _section("Caveats", "\n".join(f"- {line}" for line in caveats))


def _lineage(version: ModelVersion) -> str:
    lineage = version.lineage
    libraries = lineage.pop("libraries")
    lineage.pop("parameters")  # they hold a search's record of its trials
    shown: list[tuple[str, Any]] = [(name.replace("_", " "), value) for name, value in lineage.items()]
    shown += [(f"parameter {name}", value) for name, value in side_by_side.chosen(version).items()]
    shown += [(f"library {name}", number) for name, number in libraries.items()]
    return _section("Lineage", table(["", ""], shown))


def _activations(version: ModelVersion) -> str:
    rows = []
    activations = version.activations.select_related("actor").prefetch_related(*sharing_versions("previous"))
    for item in activations[:MOST_ACTIVATIONS]:
        switch = f"{item.previous.number if item.previous else 'none'} to {version.number}"
        overridden = "yes" if item.overridden and item.kind != "rollback" else "no"
        rows.append([item.at, item.kind, switch, _user(item.actor), overridden, item.reason])
    header = ["at", "kind", "switch", "by", "gate overridden", "reason"]
    return _section("Activations", table(header, rows) if rows else "The version has not been activated yet.")
