"""How numbers, states and hashes are written on pages."""

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
    "stable": "good",
    "notice": "warn",
    "drift": "bad",
    "active": "good",
    "succeeded": "good",
    "passed": "good",
    "candidate": "calm",
    "queued": "calm",
    "cancelled": "warn",
    "running": "busy",
    "failed": "bad",
    "rejected": "bad",
    "not passed": "bad",
    "gate not passed": "bad",
    "expired": "bad",
    "overridden": "warn",
    "out_of_range": "warn",
    "unseen_level": "warn",
    "rollback": "warn",
    "activate": "good",
}


@register.filter
def metric(value: Any) -> str:
    """A metric or score: some four digits, thousands grouped; a count as it is; a dash without a value."""
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
def get(found: dict[str, Any], name: str) -> Any:
    """An entry by a name that is itself a variable; None without one."""
    return found.get(name)


@register.filter
def setting(value: Any) -> str:
    """A hyper-parameter: four digits of a fraction, anything else as Python has it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@register.filter
def signed(value: Any) -> str:
    """A difference, always with its sign."""
    if value is None:
        return ""
    return "±0" if value == 0 else f"{'+' if value > 0 else ''}{metric(value)}"


@register.filter
def share(value: float | None) -> str:
    """A probability as per cent."""
    return "–" if value is None else f"{value * 100:.1f} %"


@register.filter
def duration(seconds: float | None) -> str:
    """A length of time in the unit that suits it."""
    if seconds is None:
        return "–"
    for unit, size in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


@register.filter
def badge(text: Any, tone: str = "") -> SafeString:
    """A state as a coloured label; the colour follows from the word unless one is given."""
    word = str(text)
    return format_html('<span class="vg-badge vg-{}">{}</span>', tone or TONES.get(word, "plain"), word)


@register.filter
def missed_gate(version: Any) -> SafeString:
    """A label for a version that did not pass its gate; nothing for others, and for none."""
    return SafeString("") if version is None or version.gate.get("passed") else badge("gate not passed")


@register.filter
def run_badges(run: Any) -> SafeString:
    """The status of a training run. One whose version did not pass its gate does not look like a success."""
    missed = missed_gate(getattr(run, "version", None))
    return format_html("{} {}", badge(run.status, "plain"), missed) if missed else badge(run.status)


@register.inclusion_tag("vigia/refused.html")
def refused(form: BaseForm) -> dict[str, Any]:
    """What is wrong with a form that was sent, for its top. Puts the cursor into the first such field."""
    wrong = [field for field in form if field.errors]
    visible = [field for field in wrong if not field.is_hidden]
    if visible:
        for each in form:
            each.field.widget.attrs.pop("autofocus", None)
        visible[0].field.widget.attrs["autofocus"] = True
    return {"form": form, "wrong": visible, "outdated": len(visible) < len(wrong)}


@register.filter
def short_hash(digest: str) -> SafeString:
    """The first twelve digits of a hash, the whole of it on hover."""
    return format_html('<code class="vg-hash" title="{}">{}</code>', digest, str(digest)[:12])


@register.filter
def value(given: Any) -> SafeString:
    """A logged value: what kind it is can be seen (text in quotes would be noise, null is not empty)."""
    if given is None:
        return format_html('<span class="vg-null">{}</span>', "null")
    if isinstance(given, bool):
        return format_html('<span class="vg-bool">{}</span>', "yes" if given else "no")
    if isinstance(given, float):
        return format_html('<span class="vg-number">{}</span>', number(given))
    if isinstance(given, int):
        return format_html('<span class="vg-number">{}</span>', whole(given))
    if isinstance(given, (dict, list)):
        return format_html("<code>{}</code>", json.dumps(given, ensure_ascii=False))
    return format_html("{}", given)


@register.filter
def brief(given: Any) -> SafeString:
    """The same in one line: of a list how many it holds, and all of it for who looks closer."""
    if not isinstance(given, list):
        return value(given)
    said = "1 answer" if len(given) == 1 else f"{len(given)} answers" if given else "no answer"
    return format_html('<span title="{}">{}</span>', json.dumps(given, ensure_ascii=False), said)


def whole(given: int) -> str:
    """A whole number; thousands are grouped from 10,000 on, so that a year stays a year."""
    return f"{given:,}" if abs(given) >= 10_000 else str(given)


def number(given: float) -> str:
    """A number people can read without losing what matters."""
    return f"{given:,.2f}" if abs(given) >= 1000 else f"{given:.6g}"


@register.filter
def warning_badges(warnings: list[dict[str, str]]) -> SafeString:
    """One label per warning: the field, and what is unusual on hover."""
    said = {"out_of_range": "outside the training range", "unseen_level": "not seen in training"}
    return format_html_join(
        " ",
        '<span class="vg-badge vg-warn" title="{}">{}</span>',
        ((said.get(item.get("code", ""), item.get("code", "")), item.get("field", "?")) for item in warnings),
    )


@register.filter
def percent_bar(percent: int) -> SafeString:
    """A progress bar that says its value to screen readers too."""
    return format_html(
        '<span class="vg-bar" role="progressbar" aria-valuenow="{0}" aria-valuemin="0" aria-valuemax="100">'
        '<span style="width:{0}%"></span></span>',
        max(0, min(int(percent), 100)),
    )


@register.filter
def took(run: Any) -> str:
    """How long a finished run lasted, from its start."""
    if run.started_at is None or run.finished_at is None:
        return ""
    seconds = (run.finished_at - run.started_at).total_seconds()
    return f"took {seconds:.1f} s" if seconds < 100 else f"took {seconds / 60:.0f} min"


@register.filter
def chart_rows(spec: dict[str, Any], at: int) -> list[tuple[Any, Any]]:
    """What a chart shows of one of its series of points, as rows of a table."""
    return [(x, y) for x, y in spec["series"][at]["points"]]


@register.filter
def chart_table(spec: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """What a chart with labels shows, as rows of a table: the label, and a cell for each series."""
    rows = []
    for at, label in enumerate(spec["labels"]):
        parts = ({name: each.get(name) for name in ("values", "low", "high")} for each in spec["series"])
        cells = [{name: values[at] if values else None for name, values in part.items()} for part in parts]
        rows.append((label, cells))
    return rows


@register.simple_tag
def charts_media() -> SafeString:
    """The scripts that draw the charts of a page."""
    sources = [static("vigia/vendor/chart.umd.min.js"), static("vigia/charts.js")]
    return format_html_join("", '<script src="{}" defer></script>', ((source,) for source in sources))
