"""Pictures as inline SVG, rendered without scripts for pages that are printed or sent.

Their colours are classes of the page, so that they follow its light or dark theme.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from vigia_ml.drift.histograms import Bar

BAR = 9
"""Height of one bar in units of the picture (pixels)."""
WIDTH, HEIGHT = 100.0, 28.0


def pair(bar: Bar, largest: float) -> SafeString:
    """Returns the two bars of one bin, reference above window; `largest` is the share of the full width."""
    parts = [
        (name, at * (BAR + 2), 100 * (share or 0.0) / largest if largest else 0.0)
        for at, (name, share) in enumerate(
            [("vg-reference", bar.reference_share), ("vg-window", bar.window_share)]
        )
    ]
    return format_html(
        '<svg class="vg-pair" viewBox="0 0 100 {}" preserveAspectRatio="none" aria-hidden="true">{}</svg>',
        2 * BAR + 2,
        format_html_join(
            "",
            '<rect class="{}" x="0" y="{}" width="{}" height="{}"/>',
            ((name + (" vg-apart" if bar.apart else ""), y, f"{width:.2f}", BAR) for name, y, width in parts),
        ),
    )


def sparkline(values: Sequence[float], description: str) -> SafeString:
    """Returns a row of small bars, one per value; `description` is the text for screen readers."""
    top = max(values, default=0) or 1
    step = WIDTH / max(1, len(values))
    rects = (
        (
            f"{at * step:.2f}",
            f"{HEIGHT - HEIGHT * value / top:.2f}",
            f"{step * 0.8:.2f}",
            f"{HEIGHT * value / top:.2f}",
        )
        for at, value in enumerate(values)
        if value
    )
    return format_html(
        '<svg class="vg-spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">'
        "<title>{}</title>{}</svg>",
        f"{WIDTH:g}",
        f"{HEIGHT:g}",
        description,
        description,
        format_html_join("", '<rect x="{}" y="{}" width="{}" height="{}"/>', rects),
    )
