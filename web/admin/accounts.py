"""Accounts and groups: who has which rights, for which models."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.db.models import Case, IntegerField, Model, When
from django.http import HttpRequest
from unfold.admin import ModelAdmin, StackedInline
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from training.models import RIGHTS, GroupScope
from training.templatetags.vigia import badge
from web.admin.verbose_names import Named, NamedChangeList

admin.site.unregister([User, Group])

RIGHTS_SHOWN = {
    f"training.{codename}": f"{codename}: {name.removeprefix('Can ')}" for codename, name in RIGHTS
}
PERMISSIONS_SHOWN = RIGHTS_SHOWN | {
    "knox.view_authtoken": "keys: see the list",
    "knox.add_authtoken": "keys: issue",
    "knox.delete_authtoken": "keys: revoke",
    "auth.view_user": "people: see",
    "auth.add_user": "people: add",
    "auth.change_user": "people: change",
    "auth.view_group": "groups: see",
}
"""The permissions that mean something here. The registry and the log go by the five rights alone (see
`training.admin.rights`); who is in which group is a superuser's business."""


class PermissionsField(forms.ModelMultipleChoiceField):  # type: ignore[type-arg]
    """Permissions by what they allow, in the order of `PERMISSIONS_SHOWN`."""

    def __init__(self, **kwargs: Any) -> None:
        order = [
            When(content_type__app_label=name.split(".")[0], codename=name.split(".")[1], then=position)
            for position, name in enumerate(PERMISSIONS_SHOWN)
        ]
        rows = Permission.objects.annotate(position=Case(*order, output_field=IntegerField()))
        rows = rows.filter(position__isnull=False).select_related("content_type").order_by("position")
        super().__init__(queryset=rows, **kwargs)

    def label_from_instance(self, obj: Any) -> str:
        return PERMISSIONS_SHOWN[f"{obj.content_type.app_label}.{obj.codename}"]


class Permissions:
    """Shows permissions as a short list of boxes to tick."""

    def formfield_for_manytomany(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        if db_field.name in ("permissions", "user_permissions"):
            return PermissionsField(
                required=False, label="Rights", widget=UnfoldAdminCheckboxSelectMultipleWidget
            )
        if db_field.name == "groups":
            kwargs["widget"] = UnfoldAdminCheckboxSelectMultipleWidget
        return super().formfield_for_manytomany(db_field, request, **kwargs)  # type: ignore[misc]


@admin.register(User)
class PersonAdmin(Permissions, DjangoUserAdmin, ModelAdmin):  # type: ignore[type-arg]
    """People who log in, and clients that hold keys. The log refers to them, so nobody is deleted."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "kind", "state", "email", "last_login")
    list_filter = ()
    filter_horizontal = ()
    fieldsets = (
        (None, {"fields": ("username", "password", "email", "first_name", "last_name")}),
        (
            "What this account may do",
            {
                "fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions"),
                "description": (
                    "Whoever has the staff status may log in here and sees the models they have a right for. "
                    "Rights given here hold for every model; a group can limit its rights to some of them. "
                    "People are not deleted, because the log and the audit table name them: "
                    "take the tick from “Active” instead, and their keys stop working too."
                ),
            },
        ),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    readonly_fields = ("last_login", "date_joined")

    def __init__(self, model: Any, admin_site: Any) -> None:
        super().__init__(model, admin_site)
        self.opts: Any = Named(model._meta, "person", "people")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[NamedChangeList]:
        return NamedChangeList

    @display(description="kind")
    def kind(self, row: User) -> str:
        return "superuser" if row.is_superuser else "staff" if row.is_staff else "client"

    @display(description="state")
    def state(self, row: User) -> str:
        return badge("active") if row.is_active else badge("inactive", "plain")

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever looks after people cannot take over a superuser's account."""
        if obj is not None and obj.is_superuser and not getattr(request.user, "is_superuser", False):
            return False
        return bool(super().has_change_permission(request, obj))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Nor give rights they may not have themselves."""
        fields = tuple(super().get_readonly_fields(request, obj))
        if getattr(request.user, "is_superuser", False):
            return fields
        return (*fields, "is_staff", "is_superuser", "groups", "user_permissions")


class ScopeInline(StackedInline):
    model = GroupScope
    max_num = 1
    extra = 1
    verbose_name = "limit"
    verbose_name_plural = "Limited to these models"
    hide_title = True

    def formfield_for_manytomany(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        kwargs["widget"] = UnfoldAdminCheckboxSelectMultipleWidget
        field = super().formfield_for_manytomany(db_field, request, **kwargs)
        if field is not None:
            field.label = "Models"
            field.help_text = (
                "Tick none and leave it at that: the rights hold for every model, also for those to come. "
                "To lift a limit later, delete it here and save."
            )
        return field


@admin.register(Group)
class TeamAdmin(Permissions, DjangoGroupAdmin, ModelAdmin):  # type: ignore[misc]
    inlines: ClassVar = [ScopeInline]
    filter_horizontal = ()
    list_display = ("name", "rights", "limited_to", "members")
    change_form_before_template = "web/rights.html"

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """A group's members get its rights, so only a superuser decides about them."""
        return bool(getattr(request.user, "is_superuser", False))

    has_add_permission = has_change_permission
    has_delete_permission = has_change_permission

    def get_queryset(self, request: HttpRequest) -> Any:
        rows = super().get_queryset(request)
        return rows.prefetch_related("permissions", "scope__registered_models", "user_set")

    @display(description="rights")
    def rights(self, row: Group) -> str:
        return ", ".join(permission.codename for permission in row.permissions.all()) or "–"

    @display(description="limited to")
    def limited_to(self, row: Any) -> str:
        scope = getattr(row, "scope", None)
        if scope is None:
            return "every model"
        return ", ".join(model.name for model in scope.registered_models.all()) or "no model"

    @display(description="members")
    def members(self, row: Any) -> int:
        return len(row.user_set.all())
