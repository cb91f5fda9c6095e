"""Events, their subscriptions and deliveries."""

from core.models.events import Delivery, Event, Subscription, SubscriptionState

__all__ = ["Delivery", "Event", "Subscription", "SubscriptionState"]
