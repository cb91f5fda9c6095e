"""The log's filters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import DropdownFilter

from predictions.admin.changelist import BEFORE, CLIENT, PERIOD, WARNED

OFFERED_CLIENTS = 200


class _Applied(DropdownFilter):
    """A filter that `LogChangeList` applies itself, after the conditions with an index."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset


class ClientFilter(_Applied):
    title = "client"
    parameter_name = CLIENT

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        # All users are listed; the clients within the log would need a read of the whole log.
        clients = User.objects.order_by("username").values_list("pk", "username")[:OFFERED_CLIENTS]
        return [(str(pk), name) for pk, name in clients]


class WarningsFilter(_Applied):
    title = "warnings"
    parameter_name = WARNED

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [("yes", "with warnings"), ("no", "without")]


class _Silent(_Applied):
    """Accepts a parameter of the list without a filter; the page shows it elsewhere."""

    title = ""

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return []


class PeriodParameter(_Silent):
    parameter_name = PERIOD


class BeforeParameter(_Silent):
    parameter_name = BEFORE
