"""The audit table: each switch of the active version with user, time and reason."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html

from training.admin.columns import column, emphasised, username
from training.admin.filters import ModelFilter, by_choice
from training.admin.rights import RegistryAdmin
from training.models import Activation
from training.templatetags.vigia import badge


def _switch(row: Activation) -> str:
    before = str(row.previous.number) if row.previous else "none"
    return format_html("<b>{}</b> {} → {}", row.registered_model.name, before, row.version.number)


def _kind(row: Activation) -> str:
    if row.overridden and row.kind != Activation.Kind.ROLLBACK:
        return format_html("{} {}", badge(row.kind), badge("overridden"))
    return badge(row.kind)


@admin.register(Activation)
class ActivationAdmin(RegistryAdmin):
    nothing_yet: ClassVar = "You activate a version on its page; this table keeps each activation."
    list_display: ClassVar = [
        column("when", "time (UTC)", attrgetter("at"), "at"),
        column("change", "switch", _switch),
        column("how", "kind", _kind),
        column("by", "by", lambda row: username(row.actor, "the service")),
        column("why", "reason", lambda row: emphasised("reason", row.reason)),
    ]
    list_filter: ClassVar = [ModelFilter, by_choice("kind", Activation.Kind)]
    ordering: ClassVar = ["-at", "-id"]
    search_fields: ClassVar = ["reason", "actor__username"]
    search_help_text = "Words of the reason, or a user name"
    fields: ClassVar = ["reason"]
    related: ClassVar = ("registered_model", "actor")
    versions: ClassVar = ("version", "previous")

    def page(self, request: HttpRequest, row: Activation) -> dict[str, Any]:
        return {"title": f"{row.kind} of {row.version}", "activation": row}
