"""The login of the admin, with a hint where the first password lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.contrib.admin.forms import AdminAuthenticationForm
from django.http import HttpRequest
from django.utils.html import format_html

LOOPBACK: Final = ("127.0.0.1", "::1")


class LoginForm(AdminAuthenticationForm):
    """Says where `make run` keeps the password, to a person at the machine that it runs on."""

    def __init__(self, request: HttpRequest | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        place = password_file()
        if place is not None and request is not None and request.META.get("REMOTE_ADDR") in LOOPBACK:
            self.fields["password"].help_text = format_html(
                "<code>make run</code> wrote the password of admin to <code>{}</code>.", place
            )


def password_file() -> str | None:
    """The file with the password of the first administrator, as a person at the local stack finds it.

    None on a server, and where nobody wrote one.
    """
    note = Path(settings.VAR_DIR) / "admin-password"
    if not settings.LOCAL or not note.is_file():
        return None
    inside = note.is_relative_to(settings.BASE_DIR)
    return str(note.relative_to(settings.BASE_DIR)) if inside else f"{note.name} in $VIGIA_VAR"
