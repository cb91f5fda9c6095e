"""Lists of any length: pages by position in an index, never by counting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django.contrib.admin.options import IncorrectLookupParameters
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.http import urlencode
from unfold.contrib.filters.admin import DropdownFilter
from unfold.views import ChangeList

AFTER = "after"


class KnownLength(Paginator):  # type: ignore[type-arg]
    """A page that is a list already; the changelist's templates ask for its length alone."""

    template_name = "admin/recommender/pages.html"


class PositionChangeList(ChangeList):
    """One page of a list that has one order, and where the next one begins.

    order : fields, as `order_by` takes them. Subclasses say where a row stands, and what comes after.
    """

    order: ClassVar[tuple[str, ...]]
    next_page: str | None
    first_page: str | None

    def position(self, row: Any) -> str:
        """Where a row stands, as the address has it."""
        raise NotImplementedError

    def after(self, rows: QuerySet[Any], position: str) -> QuerySet[Any]:
        """The rows behind a position. Raises `ValueError` for what is none."""
        raise NotImplementedError

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str]:
        return list(self.order)  # whatever the address says: no other order has an index

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str] | None = None
    ) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request, exclude_parameters)
        given = request.GET.get(AFTER)
        if not given:
            return rows
        try:
            return self.after(rows, given)
        except ValueError as error:
            raise IncorrectLookupParameters(f"{given[:80]!r} is no position") from error

    def get_results(self, request: HttpRequest) -> None:
        # One more than a page holds tells whether there is another page.
        found = list(self.queryset[: self.list_per_page + 1])
        more = len(found) > self.list_per_page
        self.result_list = found[: self.list_per_page]
        self.next_page = self._address(self.position(self.result_list[-1])) if more else None
        self.first_page = self._address(None) if request.GET.get(AFTER) else None
        self.result_count = len(self.result_list)
        self.full_result_count = self.result_count  # nobody counts all of them
        self.show_full_result_count = False
        self.show_admin_actions = bool(self.result_list)
        self.can_show_all = False
        self.multi_page = False
        self.page_num = 1
        self.paginator = KnownLength(self.result_list, max(self.list_per_page, 1))

    def _address(self, position: str | None) -> str:
        """The same list from a position on; None: from its beginning."""
        wanted = {name: given for name, given in self.filter_params.items() if name != AFTER}
        if position is not None:
            wanted[AFTER] = position
        return f"?{urlencode(sorted(wanted.items()), doseq=True)}"


class Silent(DropdownFilter):
    """Lets a parameter of the list's own through, which the list applies itself."""

    title = ""

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset


class AfterParameter(Silent):
    parameter_name = AFTER
