"""The log's filters; `LogChangeList` applies them itself, after the conditions with an index."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import User
from django.http import HttpRequest

from predictions.admin.changelist import BATCH, BEFORE, CLIENT, PERIOD, WARNED
from training.admin.paging import HiddenFilter

OFFERED_CLIENTS = 200


class ClientFilter(HiddenFilter):
    title = "client"
    parameter_name = CLIENT

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        # All users are listed; the clients within the log would need a read of the whole log.
        clients = User.objects.order_by("username").values_list("pk", "username")[:OFFERED_CLIENTS]
        return [(str(pk), name) for pk, name in clients]


class WarningsFilter(HiddenFilter):
    title = "warnings"
    parameter_name = WARNED

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [("yes", "with warnings"), ("no", "without")]


class BatchParameter(HiddenFilter):
    parameter_name = BATCH


class PeriodParameter(HiddenFilter):
    parameter_name = PERIOD


class BeforeParameter(HiddenFilter):
    parameter_name = BEFORE
