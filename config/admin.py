"""People, groups and client keys in the admin."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.core.exceptions import PermissionDenied
from django.db.models import Case, IntegerField, Model, When
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html
from django.views.decorators.debug import sensitive_variables
from knox.models import AuthToken
from unfold.admin import ModelAdmin, StackedInline
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.views import ChangeList
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
)

from training.models import RIGHTS, GroupScope
from training.services import keys
from training.templatetags.vigia import badge

LONGEST_DAYS = 3650

admin.site.index_template = "config/dashboard.html"
admin.site.index_title = "Models at a glance"

for replaced in (User, Group, AuthToken):
    admin.site.unregister(replaced)


RIGHTS_SHOWN = {f"training.{codename}": f"{codename}: {name.removeprefix('Can ')}" for codename, name in RIGHTS}
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


class Named:
    """A model's options under the name it goes by here; the model belongs to another package."""

    def __init__(self, options: Any, one: str, many: str) -> None:
        self._options, self.verbose_name, self.verbose_name_plural = options, one, many

    def __getattr__(self, name: str) -> Any:
        return getattr(self._options, name)


class NamedChangeList(ChangeList):  # type: ignore[misc]
    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        self.opts = self.model_admin.opts


class PermissionsField(forms.ModelMultipleChoiceField):
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
class PersonAdmin(Permissions, DjangoUserAdmin, ModelAdmin):  # type: ignore[misc]
    """People who log in, and clients that hold keys. The log refers to them, so nobody is deleted."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display: ClassVar = ["username", "kind", "state", "email", "last_login"]
    list_filter: ClassVar = []
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
        self.opts = Named(self.opts, "person", "people")

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


class ScopeInline(StackedInline):  # type: ignore[misc]
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
    list_display: ClassVar = ["name", "rights", "limited_to", "members"]
    change_form_before_template = "config/rights.html"

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


class KeyForm(forms.Form):
    client = forms.ModelChoiceField(
        queryset=User.objects.none(),
        widget=UnfoldAdminSelectWidget,
        help_text="Whose rights the key has. Make a client under People first; it needs no password.",
    )
    days = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=LONGEST_DAYS,
        label="Expires after",
        help_text="Days from now; empty: never.",
        widget=UnfoldAdminIntegerFieldWidget,
    )

    def __init__(self, *args: Any, by: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        clients = User.objects.filter(is_active=True).order_by("username")
        # A key answers for its client: only a superuser may issue one that can do everything.
        allowed = clients if by.is_superuser else clients.filter(is_superuser=False)
        self.fields["client"].queryset = allowed  # type: ignore[attr-defined]


@admin.register(AuthToken)
class KeyAdmin(ModelAdmin):  # type: ignore[misc]
    """Client keys. The key itself is shown once, when it is issued; only its hash is stored."""

    list_display: ClassVar = ["beginning", "client", "created", "expires", "state"]
    list_display_links = None
    search_fields: ClassVar = ["user__username", "token_key"]
    search_help_text = "Client, or the beginning of a key"
    ordering: ClassVar = ["-created"]
    list_select_related: ClassVar = ["user"]

    def __init__(self, model: Any, admin_site: Any) -> None:
        super().__init__(model, admin_site)
        self.opts = Named(self.opts, "key", "keys")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[NamedChangeList]:
        return NamedChangeList

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @display(description="key")
    def beginning(self, row: AuthToken) -> str:
        return format_html("<code>{}…</code>", row.token_key)

    @display(description="client", ordering="user__username")
    def client(self, row: AuthToken) -> str:
        return str(row.user.get_username())

    @display(description="expires", ordering="expiry")
    def expires(self, row: AuthToken) -> Any:
        return row.expiry or "never"

    @display(description="state")
    def state(self, row: AuthToken) -> str:
        if row.expiry is not None and row.expiry <= timezone.now():
            return badge("expired")
        return badge("valid", "good") if row.user.is_active else badge("client inactive", "bad")

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Names keys by their beginning rather than by their hash."""
        _, counted, needed, protected = super().get_deleted_objects(objs, request)
        return [f"key {row.token_key}… of {row.user}" for row in objs], counted, needed, protected

    @sensitive_variables("key")
    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Issues a key and shows it in the answer: neither a session nor a cookie ever holds it."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = KeyForm(request.POST or None, by=request.user)
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": "Issue a key",
            "opts": self.opts,
            "form": form,
            "media": self.media + form.media,
        }
        if request.method == "POST" and form.is_valid():
            client = form.cleaned_data["client"]
            key = keys.issue(client, days=form.cleaned_data["days"])
            self.log_change(request, client, f"Key {key[:8]}… issued.")
            context |= {"key": key, "client": client, "days": form.cleaned_data["days"]}
        return TemplateResponse(request, "config/key.html", context)
