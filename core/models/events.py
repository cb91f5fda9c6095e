"""The outbox: events, subscriptions and deliveries. `core.events` writes and delivers them."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Now


class Event(models.Model):
    """A fact of interest to other systems, written in the transaction that makes it true.

    The columns have defaults of the database, because triggers insert events too. Names of models and
    versions are text, because this application knows no other.

    Attributes
    ----------
    message_id : the same in every delivery, so that receivers recognize a repetition.
    kind : name of a `core.events.kinds.EventKind`.
    model : name of the registered model; empty if the event concerns none.
    subject : what the event is about, such as ``version 3``.
    position : place in the order of delivery; null until a dispatcher has placed the committed event.
    """

    message_id = models.UUIDField(unique=True, db_default=RandomUUID(), editable=False)
    kind = models.CharField(max_length=50)
    model = models.CharField(max_length=200, blank=True, db_default="")
    subject = models.CharField(max_length=300)
    data = models.JSONField(db_default=Value({}, models.JSONField()))
    at = models.DateTimeField(db_default=Now(), editable=False)
    position = models.BigIntegerField(null=True, unique=True, editable=False)

    class Meta:
        ordering = ["-id"]
        indexes = [
            # Dispatchers read new events every second.
            models.Index(fields=["id"], name="event_not_placed", condition=Q(position__isnull=True)),
            # Lists by kind or model, and retention.
            models.Index(fields=["kind", "-id"], name="event_by_kind"),
            models.Index(fields=["model", "-id"], name="event_by_model"),
            models.Index(fields=["at"], name="event_by_time"),
        ]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}" + (f" of {self.model}" if self.model else "")


class Subscription(models.Model):
    """A receiver of events and its filters.

    A subscription gets the events that are placed while it is enabled. It starts at the present; events that
    were placed before, or while it was disabled, come with a replay only.

    Attributes
    ----------
    owner : the events are limited to those that this user may see; see `core.events.visibility`.
    channel : name of a `core.events.channels.Channel`.
    address : URL or e-mail addresses, as the channel reads them.
    previous_secret : valid beside `secret` until `previous_until`.
    kinds, models : empty: all. An event without a model does not pass a filter by model.
    digest_minutes : an event waits for at most this long, and is sent together with those that follow it;
        0: each event is sent by itself, at once.
    """

    class Style(models.TextChoices):
        PLAIN = "plain", "plain"
        CLOUDEVENTS = "cloudevents", "CloudEvents names"

    name = models.CharField(max_length=100, unique=True)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    channel = models.CharField(max_length=20)
    address = models.CharField(max_length=2000)
    secret = models.CharField(max_length=200, blank=True)
    previous_secret = models.CharField(max_length=200, blank=True)
    previous_until = models.DateTimeField(null=True, blank=True)
    enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=300, blank=True)
    disabled_at = models.DateTimeField(null=True, blank=True)
    style = models.CharField(max_length=12, choices=Style.choices, default=Style.PLAIN)
    digest_minutes = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    kinds = ArrayField(models.CharField(max_length=50), default=list, blank=True)
    models = ArrayField(models.CharField(max_length=200), default=list, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Delivery(models.Model):
    """One event on its way to one subscription.

    Attributes
    ----------
    position : the event's; a subscription's pending deliveries are sent in this order.
    attempts : since the delivery was made or replayed. next_at : time of the next attempt.
    created_at : time when the delivery was made or replayed. error : reason of the last failure.
    finished_at : time when it was delivered or given up.
    """

    class State(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        DEAD = "dead", "dead letter"

    subscription = models.ForeignKey(
        Subscription,
        on_delete=models.CASCADE,
        related_name="deliveries",
        db_index=False,  # the first constraint's index serves
    )
    event = models.ForeignKey(Event, on_delete=models.CASCADE, related_name="deliveries")
    position = models.BigIntegerField()
    state = models.CharField(max_length=9, choices=State.choices, default=State.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField()
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-position"]
        verbose_name_plural = "deliveries"
        constraints = [
            # Also finds the deliveries of a subscription by position.
            models.UniqueConstraint(fields=["subscription", "position"], name="delivery_once_a_position"),
            models.CheckConstraint(
                condition=Q(state__in=["pending", "delivered", "dead"]), name="delivery_state_known"
            ),
            models.CheckConstraint(
                condition=Q(state="pending", finished_at=None)
                | Q(~Q(state="pending"), finished_at__isnull=False),
                name="delivery_finished_or_pending",
            ),
        ]
        indexes = [
            # Dispatchers read the first pending delivery of each subscription every second.
            models.Index(
                fields=["subscription", "position"], name="delivery_pending", condition=Q(state="pending")
            ),
            # The list of dead letters, its metric, and retention.
            models.Index(
                fields=["subscription", "-position"], name="delivery_dead", condition=Q(state="dead")
            ),
        ]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.event_id} to {self.subscription_id}: {self.state}"


class SubscriptionState(models.Model):
    """The lease and the counters of a subscription, written by dispatchers; no form writes over this row.

    Attributes
    ----------
    owner, until : the dispatcher that sends to this subscription, and the end of its lease.
    delivered, failed : successful and failed attempts so far, in messages.
    """

    subscription = models.OneToOneField(
        Subscription, primary_key=True, on_delete=models.CASCADE, related_name="delivery_state"
    )
    owner = models.UUIDField(null=True)
    until = models.DateTimeField(null=True)
    delivered = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)

    class Meta:
        default_permissions = ()
