"""Keyset pagination for the admin: pages start at a position in an index, and no page counts all rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.http import urlencode
from unfold.contrib.filters.admin import DropdownFilter
from unfold.views import ChangeList

from training.admin.rights import RegistryAdmin

AFTER = "after"


class KnownLength(Paginator):  # type: ignore[type-arg]
    """A paginator over a page that is already a list; the changelist's templates read only its length."""

    template_name = "admin/recommender/pages.html"


class PositionChangeList(ChangeList):
    """One page of a list with a fixed order, and the address of the next page.

    order : fields, as `order_by` takes them. Subclasses define `position` and `after`.
    """

    order: ClassVar[tuple[str, ...]]
    next_page: str | None
    first_page: str | None

    def position(self, row: Any) -> str:
        """Returns the position of a row, as text for the address."""
        raise NotImplementedError

    def after(self, rows: QuerySet[Any], position: str) -> QuerySet[Any]:
        """Returns the rows that follow a position. Raises `ValueError` for text that is not a position."""
        raise NotImplementedError

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str]:
        return list(self.order)  # no other order has an index, so the address cannot change it

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str] | None = None
    ) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request, exclude_parameters)
        position = request.GET.get(AFTER)
        if not position:
            return rows
        try:
            return self.after(rows, position)
        except ValueError as error:
            raise IncorrectLookupParameters(f"{position[:80]!r} is not a position in this list") from error

    def get_results(self, request: HttpRequest) -> None:
        # The query reads one row more than a page shows, which tells whether another page follows.
        rows = list(self.queryset[: self.list_per_page + 1])
        more = len(rows) > self.list_per_page
        self.result_list = rows[: self.list_per_page]
        self.next_page = self._address(self.position(self.result_list[-1])) if more else None
        self.first_page = self._address(None) if request.GET.get(AFTER) else None
        self.result_count = len(self.result_list)
        self.full_result_count = self.result_count  # a count would read all rows
        self.show_full_result_count = False
        self.show_admin_actions = bool(self.result_list)
        self.can_show_all = False
        self.multi_page = False
        self.page_num = 1
        self.paginator = KnownLength(self.result_list, max(self.list_per_page, 1))

    def _address(self, position: str | None) -> str:
        """Returns the query string of this list from `position` on; None means from the beginning."""
        parameters = {name: value for name, value in self.filter_params.items() if name != AFTER}
        if position is not None:
            parameters[AFTER] = position
        return f"?{urlencode(sorted(parameters.items()), doseq=True)}"


class HiddenFilter(DropdownFilter):
    """Accepts a query parameter that the changelist applies itself; shows no choices."""

    title = ""

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset


class AfterParameter(HiddenFilter):
    parameter_name = AFTER


class PositionAdmin(RegistryAdmin):
    """Base of the admins that page by position; an index serves their order and their filters."""

    changelist: ClassVar[type[PositionChangeList]]
    show_facets = admin.ShowFacets.NEVER  # a facet counts all rows
    sortable_by: ClassVar = ()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[PositionChangeList]:
        return self.changelist

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Allows the filters' own parameters alone: any other condition might read the whole table."""
        return lookup in {each.parameter_name for each in self.list_filter}

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        return (self.search(queryset, term) if term else queryset), False

    def search(self, rows: QuerySet[Any], term: str) -> QuerySet[Any]:
        """Returns the rows that the text of the search box selects."""
        raise NotImplementedError
