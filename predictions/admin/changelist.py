"""The log's list, which pages by position in the index and never counts."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.http import HttpRequest

from predictions.log import queries, search, time_browser
from training.admin.paging import PositionChangeList

BEFORE, PERIOD = "before", "period"
CLIENT, WARNED, BATCH = "client", "warnings", "batch"


class LogChangeList(PositionChangeList):
    """One page of the log, newest first.

    The conditions with an index (model, version, key, id, time) apply first. Client and warnings have no
    index, so they apply to the newest remaining rows only, which bounds the cost of a page.
    """

    order = ("-id",)
    parameter = BEFORE
    pages_template = "admin/predictions/prediction/pages.html"
    queryset: QuerySet[Any]
    period: time_browser.Period | None
    steps: list[time_browser.Period]
    bounded: bool
    batch: int | None

    def position(self, row: Any) -> str:
        return str(row.pk)

    def after(self, rows: QuerySet[Any], position: str) -> QuerySet[Any]:
        return rows.filter(id__lt=uuid.UUID(position))

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str] | None = None
    ) -> QuerySet[Any]:
        rows = super().get_queryset(request, exclude_parameters)
        text = request.GET.get(PERIOD, "")
        self.period = time_browser.Period.parse(text) if text else None
        if text and self.period is None:
            raise IncorrectLookupParameters(
                f"{text!r} is not a period; write 2026, 2026-11, 2026-11-20 or 2026-11-20T14"
            )
        rows = time_browser.within(rows, self.period)
        self.batch = _batch_number(request.GET.get(BATCH))
        if self.batch is not None:
            rows = queries.of_batch(rows, self.batch)
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
        self.queryset = self.queryset.defer("cells")
        super().get_results(request)

    # -- links of the list -------------------------------------------------------------------------

    def at_all_times(self) -> str:
        return self.address(period=None, before=None)

    def of_every_batch(self) -> str:
        return self.address(batch=None, before=None)

    def link(self, period: time_browser.Period) -> dict[str, str]:
        return {"label": period.label, "address": self.address(period=str(period), before=None)}

    def period_links(self) -> list[dict[str, str]]:
        return [self.link(part) for part in self.period.parents()] if self.period else []

    def step_links(self) -> list[dict[str, str]]:
        return [self.link(part) for part in self.steps]


def _batch_number(text: str | None) -> int | None:
    """Returns the number of a batch; 0, which none has, for other text; None without the parameter."""
    if not text:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
