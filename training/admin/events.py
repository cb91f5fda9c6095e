"""Events, subscriptions and deliveries in the admin; the pages call the same services as the API."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Model, OuterRef, Prefetch, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.views.decorators.debug import sensitive_variables
from unfold.widgets import (
    INPUT_CLASSES,
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
)

from core.events import channels, kinds, payloads, replays, subscriptions, trials
from core.events.visibility import Visible
from core.models import Delivery, Event, Subscription
from training.access import event_visibility, permissions
from training.admin.columns import column, emphasised, username
from training.admin.filters import ChoiceFilter, by_choice
from training.admin.paging import AfterParameter, PositionAdmin, PositionChangeList
from training.admin.rights import RegistryAdmin, is_staff, is_superuser
from training.models import ModelVersion, RegisteredModel, TrainingRun
from training.templatetags.vigia import badge
from vigia_ml.errors import VigiaError
from vigia_ml.schema import InvalidRows

CHANNELS = {"webhook": "Webhook", "email": "E-mail", "slack": "Slack"}
LATEST = 20
STATES = {"pending": "calm", "delivered": "good", "dead": "bad"}


def user_of(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def sees_events(request: HttpRequest) -> bool:
    """Returns whether the sidebar shows events to this user."""
    return is_staff(request) and (is_superuser(request) or _visible(request).models != frozenset())


def _visible(request: HttpRequest) -> Visible:
    """Returns the events that the user may see; read once per request."""
    known: dict[str, Any] = request.__dict__
    if "_vigia_events" not in known:
        known["_vigia_events"] = event_visibility.visible_to(user_of(request))
    visible: Visible = known["_vigia_events"]
    return visible


def _kind(name: str) -> str:
    return format_html("<code>{}</code>", name)


def _state(row: Delivery) -> str:
    return badge("dead letter" if row.state == "dead" else row.state, STATES[row.state])


def _counts(row: Event) -> str:
    """Returns the states of an event's deliveries to the user's subscriptions, with their numbers."""
    counts = Counter(each.state for each in row.deliveries.all())
    pieces = [badge(f"{counts[state]} {state}", STATES[state]) for state in counts]
    return format_html_join(" ", "{}", ([piece] for piece in pieces)) or "–"


def _description(kind: str) -> str:
    """Returns when such an event happens, without the names of its data, which the page shows."""
    return kinds.TABLE[kind].description.partition(" Data:")[0] if kind in kinds.TABLE else ""


def _count_of(state: str) -> Coalesce:
    """Returns the number of a subscription's deliveries in a state, which an index serves."""
    rows = Delivery.objects.filter(subscription=OuterRef("pk"), state=state).order_by()
    return Coalesce(Subquery(rows.values("subscription").annotate(n=Count("*")).values("n")), 0)


def _subscription_state(row: Subscription) -> str:
    if not row.enabled:
        return badge("disabled", "warn")
    return badge("unknown channel", "bad") if row.channel not in channels.TABLE else badge("enabled", "good")


def _open_deliveries(row: Any) -> str:
    counts = {"pending": row.waiting, "dead": row.dead}
    pieces = [badge(f"{count:,} {state}", STATES[state]) for state, count in counts.items() if count]
    return format_html_join(" ", "{}", ([piece] for piece in pieces)) or "–"


class KindFilter(ChoiceFilter):
    title, parameter_name = "kind", "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [(name, name) for name in sorted(kinds.TABLE)]


class EventModelFilter(ChoiceFilter):
    title = parameter_name = "model"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        names = permissions.allowed_models(user_of(request), "read_log").values_list("name", flat=True)
        return [(name, name) for name in names.order_by("name")]


class SubscriptionFilter(ChoiceFilter):
    title, parameter_name = "subscription", "subscription_id"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        rows = event_visibility.subscriptions(user_of(request)).order_by("name")
        return [(str(row.pk), row.name) for row in rows]


class NewestFirst(PositionChangeList):
    order = ("-id",)

    def position(self, row: Any) -> str:
        return str(row.pk)

    def after(self, rows: QuerySet[Any], position: str) -> QuerySet[Any]:
        return rows.filter(id__lt=int(position))


class VisibleRowsAdmin(PositionAdmin):
    """Base: read-only lists of the rows that the user's rights to read logs admit."""

    changelist = NewestFirst

    def rows(self, user: User) -> QuerySet[Any]:
        raise NotImplementedError

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return self.rows(user_of(request))

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return sees_events(request) and (obj is None or self.holds(request, obj))

    def holds(self, request: HttpRequest, row: Any) -> bool:
        """Returns whether the user may see the row."""
        raise NotImplementedError


@admin.register(Event)
class EventAdmin(VisibleRowsAdmin):
    nothing_yet: ClassVar = "Activations, runs, batches, drift reviews and keys write events."
    list_display: ClassVar = [
        column("when", "time (UTC)", lambda row: row.at, "at"),
        column("kind_name", "kind", lambda row: _kind(row.kind)),
        column("model_name", "model", lambda row: row.model or "–"),
        column("about", "subject", lambda row: emphasised("reason", row.subject)),
        column("delivered_to", "deliveries", _counts),
    ]
    list_filter: ClassVar = [KindFilter, EventModelFilter, AfterParameter]
    fields: ClassVar = ["kind"]
    pages: ClassVar = {"of": "of/<uuid:message_id>/"}

    def holds(self, request: HttpRequest, row: Event) -> bool:
        return _visible(request).holds(row)

    def rows(self, user: User) -> QuerySet[Any]:
        own = Delivery.objects.filter(subscription__in=event_visibility.subscriptions(user).order_by())
        return event_visibility.events(user).prefetch_related(Prefetch("deliveries", own))

    def page(self, request: HttpRequest, row: Event) -> dict[str, Any]:
        own = event_visibility.subscriptions(user_of(request)).order_by()
        return {
            "title": str(row),
            "event": row,
            "headline": payloads.title_of(row.kind),
            "description": _description(row.kind),
            "links": list(_links(row)),
            "facts": [(name.replace("_", " "), value) for name, value in row.data.items()],
            "deliveries": Delivery.objects.filter(event=row, subscription__in=own).select_related(
                "subscription", "event"
            ),
        }

    def of_page(self, request: HttpRequest, message_id: uuid.UUID) -> HttpResponse:
        """Leads from the id in a message to the event's page."""
        return self.redirect_to(get_object_or_404(self.get_queryset(request), message_id=message_id))


def _links(event: Event) -> Iterable[tuple[str, str]]:
    """Yields (name, address) of the pages of an event's model, version, run and the like."""
    model = RegisteredModel.objects.filter(name=event.model).first()
    if model is None:
        return
    yield model.title, reverse("admin:training_registeredmodel_change", args=[model.pk])
    version = ModelVersion.objects.filter(registered_model=model, number=_number(event, "version")).first()
    if version is not None:
        yield f"Version {version.number}", reverse("admin:training_modelversion_change", args=[version.pk])
    run = TrainingRun.objects.filter(registered_model=model, pk=_number(event, "run")).first()
    if run is not None:
        yield f"Run {run.pk}", reverse("admin:training_trainingrun_change", args=[run.pk])
    for name, route in (("review", "predictions_driftreview"), ("batch", "predictions_batch")):
        number = _number(event, name)
        if number:
            try:
                yield f"{name.capitalize()} {number}", reverse(f"admin:{route}_change", args=[number])
            except NoReverseMatch:
                continue


def _number(event: Event, name: str) -> int:
    value = event.data.get(name)
    return value if isinstance(value, int) else 0


@admin.register(Delivery)
class DeliveryAdmin(VisibleRowsAdmin):
    nothing_yet: ClassVar = "A subscription gets a delivery for each event that passes its filters."
    list_display: ClassVar = [
        column("when", "event (UTC)", lambda row: row.event.at),
        column("to", "subscription", lambda row: row.subscription.name),
        column("about", "event", lambda row: emphasised("reason", str(row.event))),
        column("state_name", "state", _state),
        column("attempts_made", "attempts", lambda row: row.attempts),
        column("next", "next attempt (UTC)", lambda row: row.next_at if row.state == "pending" else "–"),
        column("why", "last error", lambda row: emphasised("key", row.error) if row.error else "–"),
    ]
    list_filter: ClassVar = [by_choice("state", Delivery.State), SubscriptionFilter, AfterParameter]
    fields: ClassVar = ["state"]
    pages: ClassVar = {"replay": "<int:delivery_id>/replay/"}

    def holds(self, request: HttpRequest, row: Delivery) -> bool:
        own = is_superuser(request) or row.subscription.owner_id == request.user.pk
        return own and _visible(request).holds(row.event)

    def rows(self, user: User) -> QuerySet[Any]:
        visible = event_visibility.all_deliveries(user)
        return visible.select_related("subscription", "event")

    def page(self, request: HttpRequest, row: Delivery) -> dict[str, Any]:
        return {"title": f"Delivery to {row.subscription}", "delivery": row, "state": _state(row)}

    def replay_page(self, request: HttpRequest, delivery_id: int) -> HttpResponse:
        """Queues a finished delivery again on POST."""
        row = self.get_row(request, delivery_id)
        if request.method == "POST":
            if replays.replay(Delivery.objects.filter(pk=row.pk)):
                messages.success(request, "The event is queued again.")
            else:
                messages.info(request, "The delivery waits already; its next attempt comes by itself.")
        back = request.POST.get("back") == "subscription"
        return _page_of(row.subscription) if back else self.redirect_to(row)


def _page_of(row: Subscription) -> HttpResponseRedirect:
    return HttpResponseRedirect(reverse("admin:core_subscription_change", args=[row.pk]))


class SpanForm(forms.Form):
    """A span of time in UTC."""

    moment = {"type": "datetime-local", "class": " ".join(INPUT_CLASSES)}
    since = forms.DateTimeField(label="Since (UTC)", widget=forms.DateTimeInput(moment))
    until = forms.DateTimeField(label="Until (UTC)", widget=forms.DateTimeInput(moment), required=False)


class SubscriptionForm(forms.ModelForm):  # type: ignore[type-arg]
    """A subscription; the fields of other channels are hidden."""

    channel = forms.ChoiceField(choices=list(CHANNELS.items()), widget=UnfoldAdminSelectWidget)
    kinds = forms.MultipleChoiceField(
        required=False, widget=UnfoldAdminCheckboxSelectMultipleWidget, help_text="None ticked: all kinds."
    )
    models = forms.MultipleChoiceField(
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="None ticked: all models whose log the owner may read, future ones included.",
    )
    address = forms.CharField(
        max_length=2000,
        strip=True,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="URL with https:// of a webhook or of Slack, or e-mail addresses separated by commas.",
    )
    owner_user: ClassVar[User]

    class Meta:
        model = Subscription
        fields = ("name", "channel", "address", "kinds", "models", "style", "digest_minutes", "enabled")
        labels = {"digest_minutes": "Digest"}
        help_texts = {
            "digest_minutes": "Minutes for which one mail collects events; 0: one mail for each event.",
            "style": "Form of the body: plain JSON, or CloudEvents 1.0 (structured mode).",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fields: dict[str, Any] = self.fields
        names = {*permissions.allowed_models(self.owner_user, "read_log").values_list("name", flat=True)}
        fields["kinds"].choices = [(name, f"{name}: {each.title}") for name, each in kinds.TABLE.items()]
        fields["models"].choices = [(name, name) for name in sorted(names | {*self.instance.models})]
        fields["digest_minutes"].required = fields["style"].required = False
        if self.instance.pk:
            fields["channel"].disabled = True
            if self.instance.channel == "slack":
                fields["address"].required = False
                fields["address"].help_text = (
                    f"Now {subscriptions.shown_address(self.instance)}; empty: no change. The address is not "
                    "shown, because it is a secret."
                )
                self.initial["address"] = ""

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        if self.errors:
            return values
        if not values["address"]:
            values["address"] = self.instance.address
        if values["channel"] != "email":  # the field was hidden
            values["digest_minutes"] = 0
        if values["channel"] != "webhook":
            values["style"] = Subscription.Style.PLAIN.value
        values["digest_minutes"] = values["digest_minutes"] or 0
        values["style"] = values["style"] or Subscription.Style.PLAIN.value
        if not self.instance.pk:
            self.instance.owner = self.owner_user
        try:
            event_visibility.require_subscriber(self.owner_user, values["models"])
            subscriptions.check(self.instance, **values)
        except InvalidRows as error:
            for fault in error.faults:
                self.add_error(fault.field if fault.field in self.fields else None, f"{fault.message}.")
        except VigiaError as error:
            self.add_error("address" if error.code == "address_refused" else None, f"{error.message}.")
        return values


@admin.register(Subscription)
class SubscriptionAdmin(RegistryAdmin):
    """Subscriptions of the user; a superuser's list has all. A secret is shown once, when it is made."""

    nothing_yet: ClassVar = "Add a subscription: events then go to a webhook, by e-mail, or to Slack."
    form = SubscriptionForm
    list_display: ClassVar = [
        "name",
        column("how", "channel", lambda row: CHANNELS.get(row.channel, row.channel)),
        column("where", "address", lambda row: emphasised("key", subscriptions.shown_address(row))),
        column("what", "kinds", lambda row: emphasised("key", ", ".join(row.kinds) or "all")),
        column("which", "models", lambda row: emphasised("key", ", ".join(row.models) or "all")),
        column("state", "state", _subscription_state),
        column("waiting", "deliveries", _open_deliveries),
        column("by", "owner", lambda row: username(row.owner)),
    ]
    ordering: ClassVar = ["name"]
    sortable_by: ClassVar = ()
    fields: ClassVar = [
        "name", "channel", "address", "style", "digest_minutes", "enabled", "kinds", "models",
    ]  # fmt: skip
    conditional_fields: ClassVar = {"style": "channel == 'webhook'", "digest_minutes": "channel == 'email'"}
    pages: ClassVar = {
        "test": "<int:row_id>/test/",
        "rotate": "<int:row_id>/rotate-secret/",
        "replay": "<int:row_id>/replay/",
    }

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = event_visibility.subscriptions(user_of(request))
        return rows.annotate(waiting=_count_of("pending"), dead=_count_of("dead"))

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        own = isinstance(obj, Subscription) and obj.owner_id == request.user.pk
        return is_staff(request) and (is_superuser(request) or own or (obj is None and sees_events(request)))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return sees_events(request)

    has_change_permission = has_delete_permission = has_view_permission

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        form.owner_user = obj.owner if obj is not None else user_of(request)
        return form

    def save_model(self, request: HttpRequest, obj: Subscription, form: Any, change: bool) -> None:
        """Saves through the service, as the API does."""
        values = {name: form.cleaned_data[name] for name in form.Meta.fields}
        if change:
            row = subscriptions.change(obj, **values)
        else:
            row = subscriptions.create(user_of(request), **values)
        obj.__dict__.update(row.__dict__)

    def delete_model(self, request: HttpRequest, obj: Subscription) -> None:
        subscriptions.delete(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> None:
        for row in queryset:
            subscriptions.delete(row)

    def response_add(self, request: HttpRequest, obj: Subscription, post_url_continue: Any = None) -> Any:
        if not obj.secret:
            messages.success(
                request, f"{obj.name} is subscribed. Send a test to see whether messages arrive."
            )
            return self.redirect_to(obj)
        return self._secret(request, obj)

    def page(self, request: HttpRequest, row: Subscription) -> dict[str, Any]:
        user = user_of(request)
        return {
            "title": row.name,
            "show_history": True,
            "subscription": row,
            "channel_name": CHANNELS.get(row.channel, row.channel),
            "address": subscriptions.shown_address(row),
            "deliveries": event_visibility.deliveries(user, row).order_by("-position")[:LATEST],
            "span": SpanForm(initial={"since": timezone.now().replace(hour=0, minute=0, second=0)}),
            "progress": getattr(row, "delivery_state", None),
            "rotating": row.previous_until is not None and row.previous_until > timezone.now(),
            "owner_sees_nothing": not event_visibility.may_subscribe(row.owner),
        }

    def _own(self, request: HttpRequest, row_id: int) -> Subscription:
        row: Subscription = self.get_row(request, row_id)
        if not self.has_change_permission(request, row):
            raise PermissionDenied
        return row

    def test_page(self, request: HttpRequest, row_id: int) -> HttpResponse:
        """Sends a test message on POST and shows the receiver's answer."""
        row = self._own(request, row_id)
        if request.method == "POST":
            try:
                event_visibility.require_subscriber(row.owner)
                trial = trials.send(row)
            except VigiaError as error:
                messages.info(request, f"{error.message}.")
            else:
                tell = messages.success if trial.delivered else messages.error
                words = "The test was delivered" if trial.delivered else "The test was not delivered"
                tell(request, f"{words}: {trial.answer}")
        return self.redirect_to(row)

    @sensitive_variables()
    def rotate_page(self, request: HttpRequest, row_id: int) -> HttpResponse:
        """Gives a webhook a new secret on POST and shows it in the response."""
        row = self._own(request, row_id)
        if request.method != "POST":
            return self.redirect_to(row)
        try:
            row = subscriptions.rotate_secret(row)
        except VigiaError as error:
            messages.error(request, f"Nothing was changed: {error.message}.")
            return self.redirect_to(row)
        self.log_change(request, row, "New secret.")
        return self._secret(request, row)

    def replay_page(self, request: HttpRequest, row_id: int) -> HttpResponse:
        """Queues dead letters, or a span of events, on POST."""
        row = self._own(request, row_id)
        if request.method != "POST":
            return self.redirect_to(row)
        if "dead" in request.POST:
            rows = event_visibility.deliveries(row.owner, row).filter(state=Delivery.State.DEAD)
            queued = replays.replay(rows)
        else:
            form = SpanForm(request.POST)
            if not form.is_valid():
                messages.error(request, "Nothing was queued: enter the start of the span.")
                return self.redirect_to(row)
            until = form.cleaned_data["until"] or timezone.now()
            queued = replays.replay_span(row, form.cleaned_data["since"], until)
        messages.success(
            request, f"{queued:,} deliveries are queued." if queued != 1 else "1 delivery is queued."
        )
        return self.redirect_to(row)

    @sensitive_variables("row")
    def _secret(self, request: HttpRequest, row: Subscription) -> HttpResponse:
        return self.render(
            request, "admin/core/subscription/secret.html", f"Secret of {row.name}", subscription=row
        )
