"""The log's list, which pages by position in the index and never counts."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.http import urlencode
from unfold.views import ChangeList

from predictions.log import search, time_browser

BEFORE, PERIOD = "before", "period"
CLIENT, WARNED = "client", "warnings"


class KnownLength(Paginator):  # type: ignore[type-arg]
    """A paginator over one page that is already a list; the changelist's templates need its length only."""

    template_name = "admin/predictions/prediction/pages.html"


class LogChangeList(ChangeList):
    """One page of the log, newest first.

    The conditions with an index (model, version, key, id, time) apply first. Client and warnings have no
    index, so they apply to the newest remaining rows only, which bounds the cost of a page.
    """

    period: time_browser.Period | None
    steps: list[time_browser.Period]
    older: str | None
    bounded: bool

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str]:
        return ["-id"]  # any requested order is ignored: no other order has an index

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str] | None = None
    ) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request, exclude_parameters)
        text = request.GET.get(PERIOD, "")
        self.period = time_browser.Period.parse(text) if text else None
        if text and self.period is None:
            raise IncorrectLookupParameters(
                f"{text!r} is not a period; write 2026, 2026-11, 2026-11-20 or 2026-11-20T14"
            )
        rows = time_browser.within(rows, self.period)
        before = request.GET.get(BEFORE)
        if before:
            try:
                rows = rows.filter(id__lt=uuid.UUID(before))
            except ValueError as error:
                raise IncorrectLookupParameters(f"{before!r} is not the id of a row") from error
        client, warned = request.GET.get(CLIENT), request.GET.get(WARNED)
        self.bounded = bool(client or warned)
        if self.bounded:
            rows = search.newest(rows)
        if client:
            rows = rows.filter(client_id=int(client) if client.isascii() and client.isdigit() else 0)
        if warned:
            rows = rows.exclude(warnings=[]) if warned == "yes" else rows.filter(warnings=[])
        return rows

    def get_results(self, request: HttpRequest) -> None:
        self.steps = time_browser.steps(self.period, self.model_admin.shown_models(request))
        # One row more than a page shows whether another page follows.
        rows = list(self.queryset.defer("cells")[: self.list_per_page + 1])
        more = len(rows) > self.list_per_page
        self.result_list = rows[: self.list_per_page]
        self.older = self.address(**{BEFORE: str(self.result_list[-1].pk)}) if more else None
        self.newest = self.address(**{BEFORE: None}) if request.GET.get(BEFORE) else None
        self.result_count = len(self.result_list)
        self.full_result_count = self.result_count  # the log is never counted
        self.show_full_result_count = False
        self.show_admin_actions = bool(self.result_list)
        self.can_show_all = False
        self.multi_page = False
        self.page_num = 1
        self.paginator = KnownLength(self.result_list, max(self.list_per_page, 1))

    # -- links of the list -------------------------------------------------------------------------

    def address(self, **changes: str | None) -> str:
        """Returns the list's address with some parameters changed (None: removed)."""
        kept: dict[str, Any] = {
            name: value for name, value in self.filter_params.items() if name not in changes
        }
        parameters = kept | {name: value for name, value in changes.items() if value is not None}
        return f"?{urlencode(sorted(parameters.items()), doseq=True)}"

    def at_all_times(self) -> str:
        return self.address(period=None, before=None)

    def link(self, period: time_browser.Period) -> dict[str, str]:
        return {"label": period.label, "address": self.address(period=str(period), before=None)}

    def period_links(self) -> list[dict[str, str]]:
        return [self.link(part) for part in self.period.parents()] if self.period else []

    def step_links(self) -> list[dict[str, str]]:
        return [self.link(part) for part in self.steps]
