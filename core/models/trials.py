"""Test messages: web requests them and a dispatcher sends them, so web needs no way out of its network."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from core.models.events import Subscription


class Trial(models.Model):
    """A test message to a subscription's receiver, and the receiver's answer.

    Attributes
    ----------
    claimed_at : time when a dispatcher took it. answer : in words; of a failure, its reason.
    """

    subscription = models.ForeignKey(Subscription, on_delete=models.CASCADE, related_name="trials")
    requested_at = models.DateTimeField(db_default=Now(), editable=False)
    claimed_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    delivered = models.BooleanField(default=False)
    answer = models.TextField(blank=True)

    class Meta:
        indexes = [
            # Dispatchers look for waiting tests every second.
            models.Index(fields=["id"], name="trial_waiting", condition=Q(claimed_at__isnull=True)),
        ]
        default_permissions = ()
