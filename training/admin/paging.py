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


class PositionChangeList(ChangeList):
    """One page of a list with a fixed order, and the address of the next page.

    order : fields, as `order_by` takes them. parameter : the address' parameter with the position after which
    the page begins. Subclasses define `position` and `after`.
    """

    order: ClassVar[tuple[str, ...]]
    parameter: ClassVar[str] = AFTER
    pages_template: ClassVar[str] = "admin/training/pages.html"
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
        position = request.GET.get(self.parameter)
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
        last = self.position(self.result_list[-1]) if more else None
        self.next_page = self.address(**{self.parameter: last}) if more else None
        self.first_page = self.address(**{self.parameter: None}) if request.GET.get(self.parameter) else None
        self.result_count = len(self.result_list)
        self.full_result_count = self.result_count  # a count would read all rows
        self.show_full_result_count = False
        self.show_admin_actions = bool(self.result_list)
        self.can_show_all = False
        self.multi_page = False
        self.page_num = 1
        # The changelist's templates read only the paginator's length and template.
        paginator: Any = Paginator(self.result_list, max(self.list_per_page, 1))
        paginator.template_name = self.pages_template
        self.paginator = paginator

    def address(self, **changes: str | None) -> str:
        """Returns the list's address with some parameters changed (None: removed)."""
        kept: dict[str, Any] = {
            name: value for name, value in self.filter_params.items() if name not in changes
        }
        parameters = kept | {name: value for name, value in changes.items() if value is not None}
        return f"?{urlencode(sorted(parameters.items()), doseq=True)}"


class HiddenFilter(DropdownFilter):
    """Accepts a query parameter that the changelist applies itself; shows no choices without `lookups`."""

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
        return (self.search(request, queryset, term) if term else queryset), False

    def search(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> QuerySet[Any]:
        """Returns the rows that the text of the search box selects."""
        raise NotImplementedError
