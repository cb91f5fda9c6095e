"""Serializers of events, subscriptions and deliveries."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from core.events import payloads, subscriptions
from core.events.channels import TABLE as CHANNELS
from core.events.channels import message_of
from core.models import Delivery, Event, Subscription
from training.serializers import LinkedSerializer

MODEL_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,49}\Z"
KINDS = "Names of event kinds; empty: all."
MODELS = "Names of models; empty: all for which the owner has the right `read_log`."
DIGEST = "E-mail only: minutes for which one mail collects events; 0: one mail for each event."


class EventSerializer(serializers.Serializer[Any]):
    """An event, as a webhook in plain style sends it."""

    id = serializers.UUIDField(help_text="The same in each delivery: header `webhook-id`.")
    type = serializers.CharField(help_text="Kind of the event, such as `version.activated`.")
    timestamp = serializers.DateTimeField()
    model = serializers.CharField(allow_null=True, help_text="Null if the event concerns no model.")
    subject = serializers.CharField(help_text="What the event is about, such as `version 3`.")
    data = serializers.DictField()  # type: ignore[assignment]

    def to_representation(self, instance: Event) -> dict[str, Any]:
        return payloads.plain(message_of(instance, settings.EVENTS_SOURCE))


class EventPageSerializer(serializers.Serializer[Any]):
    events = EventSerializer(many=True)
    next = serializers.URLField(allow_null=True)


class DeliverySerializer(serializers.ModelSerializer[Delivery]):
    """An event on its way to a subscription."""

    event = EventSerializer()
    state = serializers.ChoiceField(
        choices=Delivery.State.choices,
        help_text="pending, delivered, or dead (a dead letter: given up after the last attempt).",
    )
    attempts = serializers.IntegerField(help_text="Attempts so far; a replay counts from 0 again.")
    next_at = serializers.DateTimeField(help_text="Time of the next attempt, if the state is pending.")
    error = serializers.CharField(help_text="Reason of the last failure.")

    class Meta:
        model = Delivery
        fields: ClassVar = [
            "id", "event", "state", "attempts", "next_at", "error", "created_at", "finished_at",
        ]  # fmt: skip


class DeliveryPageSerializer(serializers.Serializer[Any]):
    deliveries = DeliverySerializer(many=True)
    next = serializers.URLField(allow_null=True)


class SubscriptionSerializer(LinkedSerializer, serializers.ModelSerializer[Subscription]):
    """A receiver of events and its filters. Only the responses that create a secret show it."""

    routes: ClassVar = {
        "subscription": "subscription", "deliveries": "deliveries", "test": "test-subscription",
        "replay": "replay-subscription",
    }  # fmt: skip
    arguments: ClassVar = ("pk",)

    owner = serializers.CharField(source="owner.username")
    address = serializers.SerializerMethodField(help_text="A Slack address is shown without its path.")
    delivered = serializers.SerializerMethodField(help_text="Messages that the receiver accepted so far.")
    failed = serializers.SerializerMethodField(help_text="Attempts that failed so far.")

    class Meta:
        model = Subscription
        fields: ClassVar = [
            "id", "name", "owner", "channel", "address", "kinds", "models", "style", "digest_minutes",
            "enabled", "disabled_at", "disabled_reason", "previous_until", "delivered", "failed",
            "created_at", "links",
        ]  # fmt: skip

    def get_address(self, row: Subscription) -> str:
        return subscriptions.shown_address(row)

    def get_delivered(self, row: Subscription) -> int:
        state = getattr(row, "delivery_state", None)
        return state.delivered if state else 0

    def get_failed(self, row: Subscription) -> int:
        state = getattr(row, "delivery_state", None)
        return state.failed if state else 0


class SubscriptionListSerializer(serializers.Serializer[Any]):
    subscriptions = SubscriptionSerializer(many=True)


class SecretSerializer(SubscriptionSerializer):
    """A subscription with its secret, which no later answer shows; null for channels that sign nothing."""

    secret = serializers.SerializerMethodField(
        help_text="`whsec_…`, for the receiver; null without signature."
    )

    class Meta(SubscriptionSerializer.Meta):
        fields: ClassVar = [*SubscriptionSerializer.Meta.fields, "secret"]

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_secret(self, row: Subscription) -> str | None:
        return row.secret or None


class ChangeSubscriptionSerializer(serializers.Serializer[Any]):
    """Changes of a subscription. Unknown fields are refused: a misspelt filter would let all pass."""

    name = serializers.CharField(max_length=100, required=False)
    address = serializers.CharField(
        max_length=2000,
        required=False,
        help_text="URL with https://, or e-mail addresses separated by commas.",
    )
    kinds = serializers.ListField(
        child=serializers.CharField(max_length=50), required=False, max_length=100, help_text=KINDS
    )
    models = serializers.ListField(
        child=serializers.RegexField(MODEL_NAME), required=False, max_length=1000, help_text=MODELS
    )
    style = serializers.ChoiceField(  # type: ignore[assignment]
        choices=Subscription.Style.choices,
        required=False,
        help_text="Webhook only: plain, or cloudevents for CloudEvents 1.0 in structured mode.",
    )
    digest_minutes = serializers.IntegerField(
        min_value=0, max_value=subscriptions.LONGEST_DIGEST_MINUTES, required=False, help_text=DIGEST
    )
    enabled = serializers.BooleanField(required=False)

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            accepted = ", ".join(self.fields)
            unknown = {
                str(name)[:80]: [ErrorDetail(f"unknown field; accepted: {accepted}", "unknown_field")]
                for name in data
                if name not in self.fields
            }
            if unknown:
                raise serializers.ValidationError(unknown)
        return super().to_internal_value(data)


class CreateSubscriptionSerializer(ChangeSubscriptionSerializer):
    """A new subscription of the client that sends it."""

    name = serializers.CharField(max_length=100, help_text="Unique name of the subscription.")
    channel = serializers.CharField(help_text="webhook, email or slack.")
    address = serializers.CharField(
        max_length=2000, help_text="URL with https://, or e-mail addresses separated by commas."
    )

    def validate_channel(self, name: str) -> str:
        if name not in CHANNELS:
            message = f"a channel is one of: {', '.join(sorted(CHANNELS))}"
            raise serializers.ValidationError(message, code="invalid_choice")
        return name


class TestResultSerializer(serializers.Serializer[Any]):
    """The receiver's answer to a test message."""

    delivered = serializers.BooleanField()
    answer = serializers.CharField(help_text="The answer in words, or the reason why there is none.")


class RotateSecretSerializer(serializers.Serializer[Any]):
    keep_hours = serializers.IntegerField(
        min_value=0,
        max_value=subscriptions.LONGEST_KEEP_HOURS,
        default=subscriptions.KEEP_HOURS,
        help_text="Hours in which messages carry a signature with the earlier secret too.",
    )


class RedeliverySerializer(serializers.Serializer[Any]):
    """Dead letters, or the events of a span of time, that are delivered again."""

    dead_letters = serializers.BooleanField(default=False, help_text="All dead letters of the subscription.")
    since = serializers.DateTimeField(required=False, help_text="Start of the span, instead of dead_letters.")
    until = serializers.DateTimeField(required=False, help_text="End of the span (exclusive; default: now).")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["dead_letters"] == ("since" in attrs) or (attrs["dead_letters"] and "until" in attrs):
            raise serializers.ValidationError("send dead_letters: true, or since and until", code="bad_span")
        return attrs


class RedeliveredSerializer(serializers.Serializer[Any]):
    queued = serializers.IntegerField(help_text="Number of deliveries that are due now.")
