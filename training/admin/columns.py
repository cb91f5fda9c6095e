"""Columns of the lists in the admin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.utils.html import format_html
from unfold.decorators import display


def column(
    name: str, title: str, text: Callable[[Any], Any], ordering: str | None = None
) -> Callable[[Any], Any]:
    """Returns a column for `list_display`; `name` ends its CSS class, `text` formats a row's cell."""

    def cell(row: Any) -> Any:
        return text(row)

    cell.__name__ = name
    shown: Callable[[Any], Any] = display(description=title, ordering=ordering)(cell)
    return shown


def numbered(kind: str) -> Callable[[Any], Any]:
    """Returns the column that names a row by its kind and its number: ``replay 7``."""
    return column("number", kind, lambda row: f"{kind}\N{NO-BREAK SPACE}{row.pk}")


def username(user: Any, otherwise: str = "–") -> str:
    return user.get_username() if user else otherwise


def emphasised(kind: str, text: str) -> str:
    """Formats a text that its column may cut off; the full text is on hover."""
    return format_html('<span class="vg-{0}" title="{1}">{1}</span>', kind, text)


MODEL = column("model_name", "model", lambda row: row.registered_model.name)
VERSION = column("version_name", "version", lambda row: str(row.version))
CLIENT = column("client_name", "client", lambda row: username(row.client))
WINDOW = column(
    "window", "window (UTC)", lambda row: f"{row.since:%Y-%m-%d %H:%M} – {row.until:%Y-%m-%d %H:%M}"
)
ROWS = column("row_count", "rows", lambda row: f"{row.rows:,}")
