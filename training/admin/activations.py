"""The audit table: each switch of the active version with user, time and reason."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.decorators import display

from training.admin.filters import ChoiceFilter, ModelFilter
from training.admin.rights import RegistryAdmin
from training.models import Activation, sharing_versions
from training.templatetags.vigia import badge


class KindFilter(ChoiceFilter):
    title = "kind"
    parameter_name = "kind"
    field = "kind"
    choices_of = Activation.Kind


@admin.register(Activation)
class ActivationAdmin(RegistryAdmin):
    nothing_yet: ClassVar = "You activate a version on its page; this table keeps each activation."
    list_display: ClassVar = ["when", "change", "how", "by", "why"]
    list_filter: ClassVar = [ModelFilter, KindFilter]
    ordering: ClassVar = ["-at", "-id"]
    search_fields: ClassVar = ["reason", "actor__username"]
    search_help_text = "Words of the reason, or a user name"
    fields: ClassVar = ["reason"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Activation, Activation]:
        rows: QuerySet[Activation, Activation] = super().get_queryset(request)
        rows = rows.select_related("registered_model", "actor")
        return rows.prefetch_related(*sharing_versions("version", "previous"))

    @display(description="time (UTC)", ordering="at")
    def when(self, row: Activation) -> datetime:
        return row.at

    @display(description="switch")
    def change(self, row: Activation) -> str:
        before = str(row.previous.number) if row.previous else "none"
        return format_html("<b>{}</b> {} → {}", row.registered_model.name, before, row.version.number)

    @display(description="kind")
    def how(self, row: Activation) -> str:
        if row.overridden and row.kind != Activation.Kind.ROLLBACK:
            return format_html("{} {}", badge(row.kind), badge("overridden"))
        return badge(row.kind)

    @display(description="by")
    def by(self, row: Activation) -> str:
        return row.actor.get_username() if row.actor else "the service"

    @display(description="reason")
    def why(self, row: Activation) -> str:
        return format_html('<span class="vg-reason" title="{0}">{0}</span>', row.reason)

    def page(self, request: HttpRequest, row: Activation) -> dict[str, Any]:
        return {"title": f"{row.kind} of {row.version}", "activation": row}
