"""The model card of a version, in Markdown.

Sections after Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. Everything in it is taken from
the version's row, its dataset, its activations and the catalogue's declaration; nothing is written by hand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

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
    """The card, ending in a line break. Texts of clients and files are escaped: they stay text."""
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
    """Under which a card is kept."""
    return f"{version.registered_model.name}-{version.number}.md"


def escaped(text: Any) -> str:
    """Any text in one line of Markdown, without a meaning of its own: it can break no table, start no markup
    and bring no HTML."""
    line = _BREAKS.sub(" ", str(text)).strip()
    return _SPECIAL.sub(r"\\\1", line)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A pipe table; cells are escaped, numbers are written to some five digits."""
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


def _head(version: ModelVersion) -> str:
    model = version.registered_model
    by = version.created_by.get_username() if version.created_by else "the service"
    declared = side_by_side.declaration(model)
    facts = [
        ("registered model", model.name),
        ("version", version.number),
        ("status", version.status),
        ("kind", declared.task if declared else None),
        ("target", side_by_side.described(version.dataset_schema.target)),
        ("trained at", version.created_at),
        ("trained by", by),
        ("artifact (SHA-256)", version.artifact_sha256),
    ]
    return f"# {escaped(model.title)}, version {version.number}\n\n{table(['', ''], facts)}"


def _use(version: ModelVersion) -> str:
    declared = side_by_side.declaration(version.registered_model)
    target = version.dataset_schema.target
    said = (
        escaped(declared.description) if declared else "It is declared no longer: what it was for is unknown."
    )
    answer = f"It answers with {escaped(target.name)}" + (
        f" in {escaped(target.unit)}" if target.unit else ""
    )
    if version.threshold is not None:
        answer += f", true from a probability of {version.threshold:g} on"
    outside = (
        "Out of scope: rows whose values lie outside what is listed below. Values that training did not hold "
        "are answered with a warning, values outside the accepted bounds are refused."
    )
    return _section("Intended use", said, f"{answer}.", outside)


def _columns(version: ModelVersion) -> str:
    rows = []
    for column in version.dataset_schema.columns:
        accepted = ", ".join(column.levels) or side_by_side.bounds(column)
        kind = f"{column.type}{f' in {column.unit}' if column.unit else ''}"
        rows.append(
            [
                column.name,
                kind,
                "yes" if column.nullable else "no",
                accepted,
                side_by_side.seen(column),
                column.description,
            ]
        )
    header = ["column", "type", "may be empty", "accepted", "in the training data", "meaning"]
    return _section("Inputs", table(header, rows))


def _training_data(version: ModelVersion) -> str:
    rows = version.dataset
    by = rows.created_by.get_username() if rows.created_by else "the service"
    facts = [
        ("rows", rows.rows),
        ("of them trained on", version.train_rows),
        ("SHA-256", rows.sha256),
        ("stored at", rows.created_at),
        ("stored by", by),
        ("source", rows.source),
        ("schema (SHA-256)", version.schema_sha256),
    ]
    return _section("Training data", table(["", ""], facts))


def _evaluation_data(version: ModelVersion) -> str:
    provider = providers.find(version.registered_model.name)
    if provider is not None:
        return _section("Evaluation data", provider.judged_on)
    found = version.evaluation or {}
    split = found.get("split") or {}
    share = f", share {split['share']:g}" if split else ""
    said = (
        f"{version.holdout_rows:,} rows of the same dataset, held out by a hash of their features (seed "
        f"{version.seed}{share}): rows with equal features are on one side, and a row keeps "
        "its side when rows are added."
    )
    if split.get("method") == "by_row":
        said = (
            f"{version.holdout_rows:,} rows of the same dataset, held out by a hash of the row (seed "
            f"{version.seed}{share}; split: by_row): distinct feature rows are few or one is very common, so "
            "copies of a row are in training part and hold-out, and both hold them in their shares."
        )
    dropped = found.get("duplicates_dropped") or 0
    repeated = " ".join(
        note.message + "." for note in notes.of_rows(version.dataset.rows, dropped, dropped, None)
    )
    if dropped > notes.LOUD * version.dataset.rows:
        repeated = f"**{escaped(repeated)}**"
    return _section("Evaluation data", said, repeated)


def _metrics(version: ModelVersion) -> str:
    found = version.evaluation or {}
    intervals = found.get("intervals") or {}
    rows = []
    for row in side_by_side.metric_rows(version.registered_model, [version.metrics, version.baseline]):
        value, baseline = row.values
        better = "smaller is better" if row.smaller_is_better else "larger is better"
        name = f"{row.name} (primary)" if row.primary else row.name
        rows.append([name, value, _interval(intervals.get(row.name)), baseline, better])
    confidence = found.get("confidence")
    sure = (
        f"Intervals hold the middle {confidence:.0%} of {found['resamples']} bootstrap resamples of the "
        "hold-out (Efron 1979): how far another hold-out of this size might lie, not another training."
        if confidence and found.get("resamples")
        else ""
    )
    header = ["metric", "value", "interval", "baseline", ""]
    provider = providers.find(version.registered_model.name)
    idle = "The baseline never looks at the inputs: the mean, or the shares of the classes."
    if provider is not None:
        idle = provider.baseline_is
    return _section("Metrics", table(header, rows), sure, idle)


def _interval(pair: Sequence[float] | None) -> str | None:
    return f"{_cell(pair[0])} to {_cell(pair[1])}" if pair else None


def _pictures(version: ModelVersion) -> str:
    """Confusion or errors, and what it leans on; of an index, all that was measured."""
    found = version.evaluation or {}
    if providers.find(version.registered_model.name) is not None:
        return _section("Quantitative analyses", *(_facts(section) for section in sections.sections(found)))
    blocks = []
    if confusion := found.get("confusion"):
        rows = [
            [label, *counts] for label, counts in zip(confusion["labels"], confusion["counts"], strict=True)
        ]
        header = ["actual ↓ answered →", *(escaped(label) for label in confusion["labels"])]
        blocks.append(table(header, rows))
    if residuals := found.get("residuals"):
        absolute = residuals.get("absolute") or {}
        rows = [
            [f"{float(share):.0%} of the rows err by at most", value] for share, value in absolute.items()
        ]
        blocks.append(table(["", "in the target's unit"], rows))
    if (importance := found.get("importance")) and importance["columns"]:
        shown = importance["columns"][:IMPORTANT_COLUMNS]
        blocks.append(
            f"What it leans on: how much {escaped(importance['metric'])} loses when a column's values are "
            f"shuffled among {importance['rows']:,} rows (permutation importance). Columns that say the same "
            "share theirs."
        )
        blocks.append(table(["column", "loss"], [[item["column"], item["mean"]] for item in shown]))
    return _section("Quantitative analyses", *blocks) if blocks else ""


def _facts(section: sections.Section) -> str:
    shown = table(section.header, section.rows) if section.rows else table(["", ""], section.pairs)
    return f"### {escaped(section.title)}\n\n{shown}" if section.title else shown


def _slices(version: ModelVersion) -> str:
    found = (version.evaluation or {}).get("slices") or []
    if not found:
        return ""
    names = [row.name for row in side_by_side.metric_rows(version.registered_model, [version.metrics])]
    rows = [
        [
            f"{item['column']} = {item['level']}",
            item["rows"],
            *(item["metrics"].get(name) for name in names),
            item["not_judged"],
        ]
        for item in found
    ]
    header = ["part of the hold-out", "rows", *(escaped(name) for name in names), "too little to judge"]
    return _section("Factors", table(header, rows))


def _gate(version: ModelVersion) -> str:
    verdict = "passed" if version.gate.get("passed") else "**not passed**"
    rows = [
        [
            check["name"],
            "passed" if check["passed"] else "failed",
            check["value"],
            check["threshold"],
            check["message"],
        ]
        for check in version.gate.get("checks", [])
    ]
    against = version.gate.get("compared_with")
    beside = f"Judged against version {against}, active then, on this version's hold-out." if against else ""
    checks = table(["check", "verdict", "value", "threshold", "in words"], rows) if rows else ""
    return _section("Gate", f"The gate is {verdict}.", checks, beside)


def _engine(version: ModelVersion) -> str:
    shown: list[tuple[str, Any]] = [("engine", version.engine), ("why", version.engine_reason)]
    if parity := version.parity:
        shown += [
            ("same answers as scikit-learn", "yes" if parity["passed"] else "no"),
            (f"largest {parity['measure']} difference", parity["worst"]),
            ("tolerated", parity["tolerance"]),
            ("rows compared", parity["rows"]),
        ]
    if (latency := (version.evaluation or {}).get("latency")) and "calls" in latency:
        shown += [
            ("one row, median (ms)", latency["median_ms"]),
            ("one row, 95th percentile (ms)", latency["p95_ms"]),
            ("measured over calls", latency["calls"]),
        ]
    return _section("Engine", table(["", ""], shown))


def _caveats(version: ModelVersion) -> str:
    said = [
        "Its figures hold for rows drawn as its dataset was, and say nothing of other times or groups.",
        "Importances and slices describe this model on this data; they are no statement about causes.",
    ]
    if not version.gate.get("passed"):
        said.append("It did not pass its gate.")
    said += [f"Warning: {escaped(note.message)}." for note in notes.of_gate(version.gate)]
    said += [
        f"Warning: {escaped(note['message'])}."
        for note in version.run.notes
        if note["code"] == "rows_in_dataset" and note["level"] == "warning"
    ]
    if version.holdout_rows < 200:
        said.append(f"Its hold-out is small ({version.holdout_rows} rows): read the intervals.")
    if not version.evaluation:
        said.append("It was trained before evaluations were kept: intervals, curves and slices are missing.")
    return _section("Caveats", "\n".join(f"- {line}" for line in said))


def _lineage(version: ModelVersion) -> str:
    lineage = version.lineage
    libraries = lineage.pop("libraries")
    lineage.pop("parameters")  # with a search's record of its trials
    shown: list[tuple[str, Any]] = [(name.replace("_", " "), value) for name, value in lineage.items()]
    shown += [(f"parameter {name}", value) for name, value in side_by_side.chosen(version).items()]
    shown += [(f"library {name}", number) for name, number in libraries.items()]
    return _section("Lineage", table(["", ""], shown))


def _activations(version: ModelVersion) -> str:
    rows = [
        [
            item.at,
            item.kind,
            f"{item.previous.number if item.previous else 'none'} to {version.number}",
            item.actor.get_username() if item.actor else "the service",
            "yes" if item.overridden and item.kind != "rollback" else "no",
            item.reason,
        ]
        for item in version.activations.select_related("actor").prefetch_related(
            *sharing_versions("previous")
        )[:MOST_ACTIVATIONS]
    ]
    header = ["at", "kind", "switch", "by", "gate overridden", "reason"]
    return _section("Activations", table(header, rows) if rows else "Never yet.")
