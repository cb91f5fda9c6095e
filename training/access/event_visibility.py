"""The events that a user may see: those of the models for which the user has the right to read the log.

Events without a model concern keys; they need the right to see the list of keys.
"""

from __future__ import annotations

from collections.abc import Collection

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.db.models import Q, QuerySet

from core.errors import Forbidden
from core.events.visibility import Visible
from core.models import Delivery, Event, Subscription
from training.access import permissions

KEYS = "knox.view_authtoken"


def visible_to(user: User) -> Visible:
    """Returns the events that `user` may see now."""
    models = None
    if not permissions.may_everywhere(user, "read_log"):
        models = frozenset(permissions.allowed_models(user, "read_log").values_list("name", flat=True))
    return Visible(models, keys=user.has_perm(KEYS))


def events(user: User) -> QuerySet[Event, Event]:
    return Event.objects.filter(_of_visible(visible_to(user), ""))


def all_deliveries(user: User) -> QuerySet[Delivery, Delivery]:
    """Returns the deliveries of events that `user` may see to the subscriptions that `user` may see."""
    rows = Delivery.objects.filter(_of_visible(visible_to(user), "event__"))
    return rows if user.is_superuser else rows.filter(subscription__owner=user)


def deliveries(user: User, subscription: Subscription) -> QuerySet[Delivery, Delivery]:
    """Returns a subscription's deliveries of events that `user` may see."""
    rows = subscription.deliveries.select_related("event")
    return rows.filter(_of_visible(visible_to(user), "event__"))


def subscriptions(user: AbstractBaseUser | AnonymousUser) -> QuerySet[Subscription, Subscription]:
    """Returns the subscriptions that `user` may see and change: the user's own; a superuser's: all."""
    rows = Subscription.objects.select_related("owner", "delivery_state")
    if not isinstance(user, User) or not user.is_active:
        return rows.none()
    return rows if user.is_superuser else rows.filter(owner=user)


def may_subscribe(user: AbstractBaseUser | AnonymousUser) -> bool:
    return permissions.allowed_models(user, "read_log").exists()


def require_subscriber(user: User, models: Collection[str] = ()) -> None:
    """Raises `Forbidden` unless `user` may read the log of some model, and of each of `models`."""
    if not may_subscribe(user):
        raise Forbidden("a subscription needs the right 'read_log' for a model: ask an administrator for it")
    allowed = visible_to(user).models
    for name in models:
        if allowed is not None and name not in allowed:
            raise Forbidden(f"events of {name[:60]!r} need the right 'read_log' for this model")


def _of_visible(visible: Visible, prefix: str) -> Q:
    """Returns the condition on events, or on deliveries with the prefix ``event__``."""
    condition = Q(**{f"{prefix}model": ""}) if visible.keys else Q(pk__in=[])
    if visible.models is None:
        return condition | ~Q(**{f"{prefix}model": ""})
    return condition | Q(**{f"{prefix}model__in": sorted(visible.models)})
