"""The login form of the admin, with a hint to the file of the first password."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.contrib.admin.forms import AdminAuthenticationForm
from django.http import HttpRequest
from django.utils.html import format_html

LOOPBACK: Final = ("127.0.0.1", "::1")


class LoginForm(AdminAuthenticationForm):
    """Names the password file of `make run` to clients on the same machine."""

    def __init__(self, request: HttpRequest | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        path = password_file()
        if path is not None and request is not None and request.META.get("REMOTE_ADDR") in LOOPBACK:
            self.fields["password"].help_text = format_html(
                "<code>make run</code> wrote the password of admin to <code>{}</code>.", path
            )


def password_file() -> str | None:
    """Returns the path of the first administrator's password file, as a user of the local stack knows it.

    None on a server, or if the file does not exist.
    """
    path = Path(settings.VAR_DIR) / "admin-password"
    if not settings.LOCAL or not path.is_file():
        return None
    inside = path.is_relative_to(settings.BASE_DIR)
    return str(path.relative_to(settings.BASE_DIR)) if inside else f"{path.name} in $VIGIA_VAR"
