"""The admin's pages that list, issue and revoke client keys."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html
from django.views.decorators.debug import sensitive_variables
from knox.models import AuthToken
from unfold.admin import ModelAdmin
from unfold.decorators import display
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget

from training.access import client_keys
from training.templatetags.vigia import badge
from web.admin.verbose_names import Renamed

LONGEST_DAYS = 3650

admin.site.unregister(AuthToken)


class KeyForm(forms.Form):
    client = forms.ModelChoiceField(
        queryset=User.objects.none(),
        widget=UnfoldAdminSelectWidget,
        help_text="The key gets this account's rights. Add clients under People; they need no password.",
    )
    days = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=LONGEST_DAYS,
        label="Expires after",
        help_text="Days from now; empty: never.",
        widget=UnfoldAdminIntegerFieldWidget,
    )

    def __init__(self, *args: Any, by: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        clients = User.objects.filter(is_active=True).order_by("username")
        # A key has the rights of its client, so only a superuser issues a key with every right.
        allowed = clients if by.is_superuser else clients.filter(is_superuser=False)
        self.fields["client"].queryset = allowed  # type: ignore[attr-defined]


@admin.register(AuthToken)
class KeyAdmin(Renamed, ModelAdmin):
    """Client keys. A key is shown once, when it is issued; only its hash is stored."""

    singular, plural = "key", "keys"
    list_display: ClassVar = ["beginning", "client", "created", "expires", "state"]
    list_display_links = None
    search_fields: ClassVar = ["user__username", "token_key"]
    search_help_text = "Client, or first characters of a key"
    ordering: ClassVar = ["-created"]
    list_select_related: ClassVar = ["user"]

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @display(description="key")
    def beginning(self, row: AuthToken) -> str:
        return format_html("<code>{}…</code>", row.token_key)

    @display(description="client", ordering="user__username")
    def client(self, row: AuthToken) -> str:
        return str(row.user.get_username())

    @display(description="expires", ordering="expiry")
    def expires(self, row: AuthToken) -> Any:
        return row.expiry or "never"

    @display(description="state")
    def state(self, row: AuthToken) -> str:
        if row.expiry is not None and row.expiry <= timezone.now():
            return badge("expired")
        return badge("valid", "good") if row.user.is_active else badge("client inactive", "bad")

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Names keys by their first characters instead of their hash."""
        _, counted, needed, protected = super().get_deleted_objects(objs, request)
        return [f"key {row.token_key}… of {row.user}" for row in objs], counted, needed, protected

    @sensitive_variables("key")
    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Issues a key and shows it in the response; no session and no cookie holds it."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = KeyForm(request.POST or None, by=request.user)
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": "Issue a key",
            "opts": self.opts,
            "form": form,
            "media": self.media + form.media,
        }
        if request.method == "POST" and form.is_valid():
            client = form.cleaned_data["client"]
            key = client_keys.issue(client, days=form.cleaned_data["days"])
            self.log_change(request, client, f"Key {key[:8]}… issued.")
            context |= {"key": key, "client": client, "days": form.cleaned_data["days"]}
        return TemplateResponse(request, "web/key.html", context)
