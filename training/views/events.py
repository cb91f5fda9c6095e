"""Events, subscriptions and their deliveries over HTTP: parse, call one service, present."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.serializers import BaseSerializer

from core.errors import NotFound
from core.events import kinds, replays, subscriptions, trials
from core.models import Delivery, Subscription
from training.access import event_visibility
from training.parsers import check_length, content_length
from training.views.base import (
    PAGE,
    bad_parameter,
    datetime_param,
    following_page,
    int_param,
    requesting_user,
)
from training.views.event_serializers import (
    ChangeSubscriptionSerializer,
    CreateSubscriptionSerializer,
    DeliveryPageSerializer,
    DeliverySerializer,
    EventPageSerializer,
    EventSerializer,
    RedeliveredSerializer,
    RedeliverySerializer,
    RotateSecretSerializer,
    SecretSerializer,
    SubscriptionListSerializer,
    SubscriptionSerializer,
    TestResultSerializer,
)
from training.views.idempotent import IdempotentView

LARGEST_ID = 2**63 - 1
CURSOR = OpenApiParameter("cursor", int, description="The next page, from `next` of the page before.")


class EventApiView(IdempotentView):
    """Base of the views of events and subscriptions."""

    def subscription(self, request: Request, pk: int) -> Subscription:
        row = event_visibility.subscriptions(request.user).filter(pk=min(pk, LARGEST_ID)).first()
        if row is None:
            raise NotFound(f"you have no subscription {str(pk)[:20]}")
        return row

    def shown(self, request: Request, row: Subscription) -> dict[str, Any]:
        return dict(SubscriptionSerializer(row, context={"request": request}).data)


class EventApiBodyView(EventApiView):
    """A view whose body a serializer reads; the browsable API shows its form."""

    body: ClassVar[type[BaseSerializer[Any]]]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if content_length(request) > 0:
            check_length(request, settings.PREDICT_MAX_BYTES)

    def get_serializer(self, *args: Any, **kwargs: Any) -> BaseSerializer[Any]:
        """Returns the form of the browsable API."""
        return self.body(*args, **kwargs)

    def values(self, request: Request) -> dict[str, Any]:
        serializer = self.body(data=request.data)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)


class EventsView(EventApiView):
    """Lists the events of the models whose log this key may read, newest first."""

    @extend_schema(
        operation_id="list_events",
        responses=EventPageSerializer,
        parameters=[
            OpenApiParameter("kind", str, description="Only events of this kind."),
            OpenApiParameter("model", str, description="Only events of this model."),
            OpenApiParameter("since", OpenApiTypes.DATETIME, description="Only events from this time on."),
            OpenApiParameter("until", OpenApiTypes.DATETIME, description="Only events before this time."),
            CURSOR,
        ],
    )
    def get(self, request: Request) -> Response:
        rows = event_visibility.events(requesting_user(request))
        kind, model = request.query_params.get("kind"), request.query_params.get("model")
        if kind is not None:
            if kind not in kinds.TABLE:
                raise bad_parameter("kind", f"kind must be one of: {', '.join(sorted(kinds.TABLE))}", kind)
            rows = rows.filter(kind=kind)
        if model is not None:
            rows = rows.filter(model=model.replace("\0", ""))
        since, until = datetime_param(request, "since"), datetime_param(request, "until")
        rows = rows.filter(at__gte=since) if since is not None else rows
        rows = rows.filter(at__lt=until) if until is not None else rows
        return self.page(request, rows, "id", "events", EventSerializer, reverse("events"))

    def page(
        self,
        request: Request,
        rows: QuerySet[Any],
        field: str,
        name: str,
        serializer: type[BaseSerializer[Any]],
        address: str,
    ) -> Response:
        """Returns one page of rows, in descending order of `field`, and the address of the next."""
        cursor = int_param(request, "cursor", LARGEST_ID)
        rows = rows.filter(**{f"{field}__lt": cursor}) if cursor is not None else rows
        read = list(rows.order_by(f"-{field}")[: PAGE + 1])
        last = getattr(read[PAGE - 1], field) if len(read) > PAGE else None
        following, headers = following_page(request, address, last)
        data = serializer(read[:PAGE], many=True, context={"request": request}).data
        return Response({name: data, "next": following}, headers=headers)


class SubscriptionsView(EventApiBodyView):
    """GET lists the client's own subscriptions (for a superuser: all); POST creates one."""

    body = CreateSubscriptionSerializer

    @extend_schema(operation_id="list_subscriptions", responses=SubscriptionListSerializer)
    def get(self, request: Request) -> Response:
        rows = event_visibility.subscriptions(request.user)
        return Response({"subscriptions": [self.shown(request, row) for row in rows.order_by("name")]})

    @extend_schema(
        operation_id="create_subscription",
        request=CreateSubscriptionSerializer,
        responses={201: SecretSerializer},
    )
    def post(self, request: Request) -> Response:
        owner = requesting_user(request)
        event_visibility.require_subscriber(owner)
        values = self.values(request)
        event_visibility.require_subscriber(owner, values.get("models", ()))
        row = subscriptions.create(owner, **values)
        address = reverse("subscription", args=[row.pk], request=request)
        data = SecretSerializer(row, context={"request": request}).data
        return Response(data, status=201, headers={"Location": address})


class SubscriptionView(EventApiBodyView):
    """Shows, changes or deletes one subscription."""

    body = ChangeSubscriptionSerializer

    @extend_schema(operation_id="get_subscription", responses=SubscriptionSerializer)
    def get(self, request: Request, subscription: int) -> Response:
        return Response(self.shown(request, self.subscription(request, subscription)))

    @extend_schema(
        operation_id="change_subscription",
        request=ChangeSubscriptionSerializer,
        responses=SubscriptionSerializer,
    )
    def patch(self, request: Request, subscription: int) -> Response:
        row = self.subscription(request, subscription)
        values = self.values(request)
        if values != {"enabled": False}:  # to stop needs no right
            event_visibility.require_subscriber(row.owner, values.get("models", ()))
        return Response(self.shown(request, subscriptions.change(row, **values)))

    @extend_schema(operation_id="delete_subscription", responses={204: None})
    def delete(self, request: Request, subscription: int) -> Response:
        subscriptions.delete(self.subscription(request, subscription))
        return Response(status=204)


class TestSubscriptionView(EventApiView):
    """Sends a test message to the receiver and shows its answer."""

    creates_rows = False

    @extend_schema(operation_id="test_subscription", request=None, responses=TestResultSerializer)
    def post(self, request: Request, subscription: int) -> Response:
        row = self.subscription(request, subscription)
        event_visibility.require_subscriber(row.owner)
        trial = trials.send(row)
        return Response(TestResultSerializer(trial).data)


class RotateSecretView(EventApiBodyView):
    """Gives a webhook a new secret. Until `previous_until` messages are signed with the earlier one too."""

    body = RotateSecretSerializer

    @extend_schema(
        operation_id="rotate_subscription_secret", request=RotateSecretSerializer, responses=SecretSerializer
    )
    def post(self, request: Request, subscription: int) -> Response:
        row = self.subscription(request, subscription)
        values = self.values(request)
        row = subscriptions.rotate_secret(row, **values)
        return Response(SecretSerializer(row, context={"request": request}).data)


class DeliveriesView(EventsView):
    """Lists the deliveries of a subscription, the newest events first."""

    @extend_schema(
        operation_id="list_deliveries",
        responses=DeliveryPageSerializer,
        parameters=[
            OpenApiParameter("state", str, enum=Delivery.State.values, description="Only these deliveries."),
            CURSOR,
        ],
    )
    def get(self, request: Request, subscription: int) -> Response:  # type: ignore[override]
        row = self.subscription(request, subscription)
        rows = event_visibility.deliveries(requesting_user(request), row)
        state = request.query_params.get("state")
        if state is not None:
            if state not in Delivery.State.values:
                accepted = ", ".join(Delivery.State.values)
                raise bad_parameter("state", f"state must be one of: {accepted}", state)
            rows = rows.filter(state=state)
        address = reverse("deliveries", args=[row.pk])
        return self.page(request, rows, "position", "deliveries", DeliverySerializer, address)


class ReplayView(EventApiBodyView):
    """Queues dead letters, or the events of a span of time, for delivery; each keeps its message id."""

    body = RedeliverySerializer

    @extend_schema(
        operation_id="replay_subscription",
        request=RedeliverySerializer,
        responses={202: RedeliveredSerializer},
    )
    def post(self, request: Request, subscription: int) -> Response:
        row = self.subscription(request, subscription)
        values = self.values(request)
        if values["dead_letters"]:
            rows = event_visibility.deliveries(row.owner, row).filter(state=Delivery.State.DEAD)
            queued = replays.replay(rows)
        else:
            queued = replays.replay_span(row, values["since"], values.get("until", timezone.now()))
        return Response({"queued": queued}, status=202)


class ReplayDeliveryView(EventApiView):
    """Queues one finished delivery again."""

    @extend_schema(operation_id="replay_delivery", request=None, responses={202: DeliverySerializer})
    def post(self, request: Request, subscription: int, delivery: int) -> Response:
        row = self.subscription(request, subscription)
        rows = event_visibility.deliveries(row.owner, row).filter(pk=min(delivery, LARGEST_ID))
        replays.replay(rows)
        found = rows.first()
        if found is None:
            raise NotFound(f"{row.name} has no delivery {str(delivery)[:20]}")
        return Response(DeliverySerializer(found).data, status=202)
