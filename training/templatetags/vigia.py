"""Template filters and tags that format numbers, states and hashes."""

from __future__ import annotations

import json
import math
from typing import Any

from django import template
from django.forms import BaseForm
from django.templatetags.static import static
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

register = template.Library()

MINUS = "\N{MINUS SIGN}"
TONES = {
    word: tone
    for tone, words in {
        "good": ("stable", "active", "succeeded", "passed", "activate"),
        "warn": ("notice", "cancelled", "overridden", "out_of_range", "unseen_level", "rollback"),
        "bad": ("drift", "failed", "rejected", "not passed", "gate not passed", "expired"),
        "calm": ("candidate", "queued"),
        "busy": ("running",),
    }.items()
    for word in words
}


@register.filter
def metric(value: Any) -> str:
    """Formats a metric with about four digits and grouped thousands, a count in full, None as a dash."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}".replace("-", MINUS)
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if 0 < size < 0.000_05:
        return f"{value:.1e}".replace("-", MINUS)
    written = f"{value:,.0f}" if size >= 1000 else f"{value:.4g}" if size >= 10 else f"{value:.4f}"
    return written.replace("-", MINUS)


@register.filter
def get(mapping: dict[str, Any], name: str) -> Any:
    """Returns the entry whose name a template variable holds, or None."""
    return mapping.get(name)


@register.filter
def setting(value: Any) -> str:
    """Formats a hyper-parameter: four digits of a fraction, any other value as Python prints it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@register.filter
def signed(value: Any) -> str:
    if value is None:
        return ""
    return "±0" if value == 0 else f"{'+' if value > 0 else ''}{metric(value)}"


@register.filter
def share(value: float | None) -> str:
    """Formats a probability in percent."""
    return "–" if value is None else f"{value * 100:.1f} %"


@register.filter
def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for unit, size in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


@register.filter
def badge(text: Any, tone: str = "") -> SafeString:
    """Formats a state as a coloured label; the word decides the colour unless `tone` does."""
    word = str(text)
    return format_html('<span class="vg-badge vg-{}">{}</span>', tone or TONES.get(word, "plain"), word)


@register.filter
def missed_gate(version: Any) -> SafeString:
    """Returns a label for a version that did not pass its gate; empty for other versions and for None."""
    return SafeString("") if version is None or version.gate.get("passed") else badge("gate not passed")


@register.filter
def run_badges(run: Any) -> SafeString:
    """Formats the status of a run; a run whose version did not pass its gate does not look successful."""
    missed = missed_gate(getattr(run, "version", None))
    return format_html("{} {}", badge(run.status, "plain"), missed) if missed else badge(run.status)


@register.inclusion_tag("vigia/refused.html")
def refused(form: BaseForm) -> dict[str, Any]:
    """Shows the errors of a rejected form above its fields; the first invalid field gets the cursor."""
    invalid = [field for field in form if field.errors]
    visible = [field for field in invalid if not field.is_hidden]
    if visible:
        for each in form:
            each.field.widget.attrs.pop("autofocus", None)
        visible[0].field.widget.attrs["autofocus"] = True
    return {"form": form, "invalid": visible, "outdated": len(visible) < len(invalid)}


@register.filter
def short_hash(digest: str) -> SafeString:
    """Formats the first twelve digits of a hash, with the full hash on hover."""
    return format_html('<code class="vg-hash" title="{}">{}</code>', digest, str(digest)[:12])


@register.filter
def value(logged: Any) -> SafeString:
    """Formats a logged value so that its type is visible: null differs from empty text, without quotes."""
    if logged is None:
        return format_html('<span class="vg-null">{}</span>', "null")
    if isinstance(logged, bool):
        return format_html('<span class="vg-bool">{}</span>', "yes" if logged else "no")
    if isinstance(logged, float):
        text = f"{logged:,.2f}" if abs(logged) >= 1000 else f"{logged:.6g}"
        return format_html('<span class="vg-number">{}</span>', text)
    if isinstance(logged, int):
        text = f"{logged:,}" if abs(logged) >= 10_000 else str(logged)  # a year has no comma
        return format_html('<span class="vg-number">{}</span>', text)
    if isinstance(logged, (dict, list)):
        return format_html("<code>{}</code>", json.dumps(logged, ensure_ascii=False))
    return format_html("{}", logged)


@register.filter
def brief(logged: Any) -> SafeString:
    """Formats a logged value in one line: a list as its number of answers, with all of them on hover."""
    if not isinstance(logged, list):
        return value(logged)
    count = "1 answer" if len(logged) == 1 else f"{len(logged)} answers" if logged else "no answer"
    return format_html('<span title="{}">{}</span>', json.dumps(logged, ensure_ascii=False), count)


@register.filter
def warning_badges(warnings: list[dict[str, str]]) -> SafeString:
    """Formats one label per warning: the field, with the message on hover."""
    messages = {"out_of_range": "outside the training range", "unseen_level": "not seen in training"}
    return format_html_join(
        " ",
        '<span class="vg-badge vg-warn" title="{}">{}</span>',
        (
            (messages.get(item.get("code", ""), item.get("code", "")), item.get("field", "?"))
            for item in warnings
        ),
    )


@register.filter
def percent_bar(percent: int) -> SafeString:
    """Formats a progress bar whose value screen readers announce."""
    return format_html(
        '<span class="vg-bar" role="progressbar" aria-valuenow="{0}" aria-valuemin="0" aria-valuemax="100">'
        '<span style="width:{0}%"></span></span>',
        max(0, min(int(percent), 100)),
    )


@register.filter
def took(run: Any) -> str:
    """Formats the duration of a finished run from its start; empty for other runs."""
    if run.started_at is None or run.finished_at is None:
        return ""
    seconds = (run.finished_at - run.started_at).total_seconds()
    return f"took {seconds:.1f} s" if seconds < 100 else f"took {seconds / 60:.0f} min"


@register.filter
def chart_rows(spec: dict[str, Any], at: int) -> list[tuple[Any, Any]]:
    """Returns one series of points of a chart as rows of a table."""
    return [(x, y) for x, y in spec["series"][at]["points"]]


@register.filter
def chart_table(spec: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Returns a chart with labels as rows of a table: the label and a cell for each series."""
    rows = []
    for at, label in enumerate(spec["labels"]):
        parts = ({name: each.get(name) for name in ("values", "low", "high")} for each in spec["series"])
        cells = [{name: values[at] if values else None for name, values in part.items()} for part in parts]
        rows.append((label, cells))
    return rows


@register.simple_tag
def charts_media() -> SafeString:
    sources = [static("vigia/vendor/chart.umd.min.js"), static("vigia/charts.js")]
    return format_html_join("", '<script src="{}" defer></script>', ((source,) for source in sources))
