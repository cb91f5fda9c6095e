"""Events, their subscriptions and deliveries."""

from core.models.events import Delivery, Event, Subscription, SubscriptionState
from core.models.trials import Trial

__all__ = ["Delivery", "Event", "Subscription", "SubscriptionState", "Trial"]
