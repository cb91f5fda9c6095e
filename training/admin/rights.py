"""Rights in the admin: the same rights as for client keys.

Django's own view/add/change/delete permissions on the registry and the log do not count here, so that the
admin and the API decide alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.admin import ModelAdmin

from training.access import permissions
from training.models import RegisteredModel, sharing_versions


def allowed_ids(request: HttpRequest, right: permissions.Right) -> frozenset[int]:
    """Returns the ids of the models for which this user has `right`; one query per request."""
    return _once(request, right, lambda: permissions.allowed_models(request.user, right))


def visible_ids(request: HttpRequest) -> frozenset[int]:
    """Returns the ids of the models for which this user has any right; one query per request."""
    return _once(request, "any", lambda: permissions.visible_models(request.user))


def _once(
    request: HttpRequest, key: str, models: Callable[[], QuerySet[RegisteredModel, RegisteredModel]]
) -> frozenset[int]:
    known: dict[str, frozenset[int]] = request.__dict__.setdefault("_vigia_rights", {})
    # A superuser has every right for every model, so one query suffices.
    key = "superuser" if getattr(request.user, "is_superuser", False) else key
    if key not in known:
        known[key] = frozenset(models().values_list("pk", flat=True))
    return known[key]


def is_staff(request: HttpRequest) -> bool:
    return bool(request.user.is_active and getattr(request.user, "is_staff", False))


def is_superuser(request: HttpRequest) -> bool:
    return is_staff(request) and bool(getattr(request.user, "is_superuser", False))


def sees_models(request: HttpRequest) -> bool:
    return is_staff(request) and (is_superuser(request) or bool(visible_ids(request)))


def sees_log(request: HttpRequest) -> bool:
    return is_staff(request) and (is_superuser(request) or bool(allowed_ids(request, "read_log")))


def require(request: HttpRequest, right: permissions.Right, model: RegisteredModel) -> None:
    if model.pk not in allowed_ids(request, right):
        raise PermissionDenied(f"this needs the right {right!r} for {model.name}")


class RegistryAdmin(ModelAdmin):
    """Rows of the models for which the user has any right; read-only unless a subclass allows changes."""

    model_field: ClassVar[str] = "registered_model_id"
    list_per_page = 50
    list_filter_submit = True
    actions: ClassVar[Any] = None
    nothing_yet: ClassVar[str] = ""
    """Text of an empty list: how its rows are created."""
    related: ClassVar[tuple[str, ...]] = ()
    """Relations that the query of a row reads as well."""
    versions: ClassVar[tuple[str, ...]] = ()
    """Relations to versions, see `sharing_versions`."""
    pages: ClassVar[Mapping[str, str]] = {}
    """Name of a page beside the list and the rows -> its route; method `NAME_page` is its view."""

    def model_ids(self, request: HttpRequest) -> frozenset[int]:
        return visible_ids(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        rows = rows.prefetch_related(*sharing_versions(*self.versions))
        rows = rows.select_related(*self.related) if self.related else rows
        if is_superuser(request):
            return rows
        return rows.filter(**{f"{self.model_field}__in": self.model_ids(request)})

    def get_urls(self) -> list[URLPattern]:
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        own = [
            path(route, self.admin_site.admin_view(getattr(self, f"{name}_page")), name=f"{prefix}_{name}")
            for name, route in self.pages.items()
        ]
        return [*own, *super().get_urls()]

    def get_row(self, request: HttpRequest, pk: int) -> Any:
        """Returns a row that the user may see; answers 404 for others."""
        return get_object_or_404(self.get_queryset(request), pk=pk)

    def redirect_to(self, row: Model) -> HttpResponseRedirect:
        """Returns the redirect to the page of a row."""
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_change"
        return HttpResponseRedirect(reverse(name, args=[row.pk]))

    def render(self, request: HttpRequest, template: str, title: str, **context: Any) -> TemplateResponse:
        """Returns a page of `pages`; a `form` in the context brings its media."""
        shared = self.admin_site.each_context(request) | {"title": title, "opts": self.opts}
        if "form" in context:
            shared["media"] = context["form"].media
        return TemplateResponse(request, template, shared | context)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        if not is_staff(request):
            return False
        if is_superuser(request):
            return True
        ids = self.model_ids(request)
        return bool(ids) if obj is None else getattr(obj, self.model_field) in ids

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        extra = dict(extra_context or {})
        row = self.get_object(request, object_id) if object_id else None
        if row is not None and self.has_view_permission(request, row):
            # The admin cannot change these rows, so they have no history of changes.
            extra.setdefault("show_history", False)
            extra |= self.page(request, row)
        return super().changeform_view(request, object_id, form_url, extra)

    def page(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Returns the template context of the row's page."""
        return {}
