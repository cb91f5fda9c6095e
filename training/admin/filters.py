"""Filters of the registry's lists; they offer only values that the user may see."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet, TextChoices
from django.http import HttpRequest
from unfold.contrib.filters.admin import DropdownFilter

from training.models import RegisteredModel


class ModelFilter(DropdownFilter):
    """A filter by registered model; the URL holds the model's name."""

    title = "model"
    parameter_name = "model"
    field = "registered_model_id"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        self.rows = {
            row.name: row.pk for row in RegisteredModel.objects.filter(pk__in=model_admin.model_ids(request))
        }
        return [(name, name) for name in self.rows]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        name = self.value()
        if not name:
            return queryset
        # An unknown name selects no row instead of all rows.
        return queryset.filter(**{self.field: self.rows.get(name, 0)})


class ChoiceFilter(DropdownFilter):
    """A filter by one of the values of `lookups`, which subclasses define; `parameter_name` is the field."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self.value()
        known = {value for value, _ in self.lookup_choices}  # the URL may hold any value
        return queryset.filter(**{self.parameter_name: chosen}) if chosen in known else queryset


def by_choice(field: str, choices: type[TextChoices]) -> type[ChoiceFilter]:
    """Returns the filter by the choices of a field."""

    class FieldFilter(ChoiceFilter):
        title = parameter_name = field

        def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
            return [(value, value) for value in choices.values]

    return FieldFilter
