"""The admin's pages of accounts and groups, which hold rights for models."""

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
from web.admin.verbose_names import Renamed

admin.site.unregister([User, Group])

PERMISSIONS_SHOWN = {
    **{f"training.{codename}": f"{codename}: {name.removeprefix('Can ')}" for codename, name in RIGHTS},
    "knox.view_authtoken": "keys: see the list",
    "knox.add_authtoken": "keys: issue",
    "knox.delete_authtoken": "keys: revoke",
    "auth.view_user": "people: see",
    "auth.add_user": "people: add",
    "auth.change_user": "people: change",
    "auth.view_group": "groups: see",
}
"""The permissions that have an effect. The registry and the log check the six rights alone (see
`training.admin.rights`); only a superuser changes the members of groups."""


class PermissionsField(forms.ModelMultipleChoiceField):  # type: ignore[type-arg]
    """A field of permissions, described and ordered by `PERMISSIONS_SHOWN`."""

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
    """A mixin that shows permissions as a short list of checkboxes."""

    def formfield_for_manytomany(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        if db_field.name in ("permissions", "user_permissions"):
            return PermissionsField(
                required=False, label="Rights", widget=UnfoldAdminCheckboxSelectMultipleWidget
            )
        if db_field.name == "groups":
            kwargs["widget"] = UnfoldAdminCheckboxSelectMultipleWidget
        return super().formfield_for_manytomany(db_field, request, **kwargs)  # type: ignore[misc]


@admin.register(User)
class PersonAdmin(Renamed, Permissions, DjangoUserAdmin, ModelAdmin):  # type: ignore[type-arg]
    """Accounts of people and of clients that hold keys. The log refers to accounts, so none is deleted."""

    singular, plural = "person", "people"
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "kind", "state", "email", "last_login")
    list_filter = ()
    filter_horizontal = ()
    fieldsets = (
        (None, {"fields": ("username", "password", "email", "first_name", "last_name")}),
        (
            "Rights of this account",
            {
                "fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions"),
                "description": (
                    "Staff may log in to the admin and see the models they have a right for. "
                    "Rights given here hold for every model; a group can limit its rights to some models. "
                    "Accounts cannot be deleted, because the log and the audit table refer to them: "
                    "clear “Active” instead; this also disables the account's keys."
                ),
            },
        ),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    readonly_fields = ("last_login", "date_joined")

    @display(description="kind")
    def kind(self, row: User) -> str:
        return "superuser" if row.is_superuser else "staff" if row.is_staff else "client"

    @display(description="state")
    def state(self, row: User) -> str:
        return badge("active") if row.is_active else badge("inactive", "plain")

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Returns whether the user may change the account; only a superuser changes a superuser's."""
        if obj is not None and obj.is_superuser and not getattr(request.user, "is_superuser", False):
            return False
        return bool(super().has_change_permission(request, obj))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Returns the read-only fields; only a superuser gives rights."""
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
                "Leave all unticked: the rights hold for every model, future ones included. "
                "To remove a limit later, delete it here and save."
            )
        return field


@admin.register(Group)
class TeamAdmin(Permissions, DjangoGroupAdmin, ModelAdmin):  # type: ignore[misc]
    inlines: ClassVar = [ScopeInline]
    filter_horizontal = ()
    list_display = ("name", "rights", "limited_to", "members")
    change_form_before_template = "web/rights.html"

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Returns whether the user may change the group; only a superuser may: members get its rights."""
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
