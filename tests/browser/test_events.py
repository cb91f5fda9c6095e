"""The pages of events: subscribe, send a test, look at deliveries, deliver again."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from core.events import emit, placing
from core.models import Delivery, Subscription
from tests.browser.conftest import CHROMIUM
from tests.core.events.receivers import OK, answer, receiver
from tests.core.events.recording import running
from tests.trained import train_sample

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed (apt install chromium)"),
    pytest.mark.django_db(transaction=True),
]


def shot(page: Any, name: str) -> None:
    """Keeps pictures of a page for people, where EVENTS_SHOTS names a folder."""
    folder = os.environ.get("EVENTS_SHOTS")
    if not folder:
        return
    for width, scheme in ((1280, "light"), (390, "light"), (1280, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(f"document.documentElement.classList.toggle('dark', {str(scheme == 'dark').lower()})")
        page.wait_for_timeout(150)
        page.screenshot(path=f"{folder}/{name}-{width}-{scheme}.png", full_page=True)
    page.evaluate("document.documentElement.classList.remove('dark')")
    page.set_viewport_size({"width": 1400, "height": 900})


def test_a_subscription_from_the_form_to_a_delivery(page: Any, settings: Any) -> None:
    settings.EVENTS_ALLOW_INTERNAL = [ipaddress.ip_network("127.0.0.0/8")]
    train_sample("churn", rows=300)
    page.goto("/admin/core/subscription/")
    shot(page, "empty")
    page.goto("/admin/core/subscription/add/")
    page.get_by_label("Name").fill("pipeline")
    page.get_by_label("Style").wait_for()
    for channel, shown, hidden in (("email", "Digest", "Style"), ("webhook", "Style", "Digest")):
        page.get_by_label("Channel").select_option(channel)
        page.get_by_label(shown).wait_for()
        page.get_by_label(hidden).wait_for(state="hidden")
    page.get_by_label("Address").fill("https://169.254.169.254/latest/meta-data/")
    shot(page, "add")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("is an internal address").first.wait_for()
    shot(page, "refused")
    with running(), receiver(answer(OK)) as there:
        page.get_by_label("Address").fill(there.address)
        page.get_by_role("button", name="Save", exact=True).click()
        secret = page.locator("#vg-key").text_content()
        assert re.fullmatch(r"whsec_[A-Za-z0-9+/=]{44}", secret)
        shot(page, "secret")
        page.get_by_role("link", name="Show the subscription").click()
        assert secret not in page.content()
        page.get_by_role("button", name="Send a test").click()
        page.get_by_text("The test was delivered: 204 No Content").wait_for()
        shot(page, "tested")
        with transaction.atomic():
            emit(
                "version.activated",
                model="churn",
                subject="version 1",
                data={"version": 1, "reason": "better"},
            )
        for _ in range(100):
            if Delivery.objects.filter(state="delivered", event__subject="version 1").exists():
                break
            page.wait_for_timeout(100)
        page.reload()
        page.get_by_role("button", name="Deliver again").first.click()
        page.get_by_text("The event is queued again").wait_for()
    assert Subscription.objects.get().secret == secret


def test_lists_and_pages_of_events_and_dead_letters(page: Any) -> None:
    train_sample("churn", rows=300)
    boss = User.objects.get(username="boss")
    for name, channel, address, enabled in (
        ("on call", "slack", "https://hooks.slack.com/services/T000/B000/secret", True),
        ("pipeline of the nightly retraining", "webhook", "https://example.com/" + "hooks/" * 20, True),
        ("team", "email", "ana@example.com, operations@example.com", False),
    ):
        row = Subscription.objects.create(
            name=name, channel=channel, address=address, owner=boss, enabled=enabled, secret="whsec_x"
        )
    row.disabled_at, row.disabled_reason = timezone.now(), "the receiver answered 410 Gone in 12 ms"
    row.kinds = ["drift.found", "quality.fell"]
    row.save()
    with transaction.atomic():
        for number in range(3):
            emit(
                "gate.refused",
                model="churn",
                subject=f"version {number + 2}",
                data={
                    "version": 1,
                    "run": 1,
                    "checks": [{"name": "roc_auc", "message": "0.71 is below 0.8"}],
                    "reason": "<b>not</b> better, " * 12,
                },
            )
    placing.place()
    rows = Delivery.objects.filter(subscription__channel="webhook", event__kind="gate.refused")
    later = timezone.now() + dt.timedelta(minutes=20)
    error = "the receiver answered 500 Internal Server Error in 31 ms: <html>no room left on the device"
    rows.update(attempts=4, error=error, next_at=later)
    first, second, _ = rows.order_by("position")
    Delivery.objects.filter(pk=first.pk).update(state="dead", finished_at=timezone.now(), attempts=24)
    Delivery.objects.filter(pk=second.pk).update(state="delivered", finished_at=timezone.now(), error="")
    places = {
        "subscriptions": "/admin/core/subscription/",
        "events": "/admin/core/event/",
        "deliveries": "/admin/core/delivery/",
        "event": f"/admin/core/event/{first.event_id}/change/",
        "delivery": f"/admin/core/delivery/{first.pk}/change/",
        "subscription": f"/admin/core/subscription/{first.subscription_id}/change/",
        "disabled": f"/admin/core/subscription/{row.pk}/change/",
    }
    for name, place in places.items():
        page.goto(place)
        assert "hooks.slack.com/services" not in page.content()
        shot(page, name)
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        page.set_viewport_size({"width": 1400, "height": 900})
    page.goto(f"/admin/core/event/of/{first.event.message_id}/")
    page.get_by_role("heading", name="Gate refused a version").wait_for()
    page.get_by_role("link", name="Version 1", exact=True).wait_for()
    page.goto(places["subscription"])
    page.get_by_role("button", name="Deliver 1 dead letter again").click()
    page.get_by_text("1 delivery is queued.").wait_for()
    first.refresh_from_db()
    assert first.state == Delivery.State.PENDING and first.attempts == 0
