"""The admin's pages of events: who sees which rows, and what the forms do."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from core.events import emit, placing, subscriptions
from core.models import Delivery, Event, Subscription
from tests.conftest import Staff
from training.models import RegisteredModel

pytestmark = pytest.mark.django_db
SUBSCRIPTIONS, EVENTS, DELIVERIES = (f"/admin/core/{name}/" for name in ("subscription", "event", "delivery"))
FORM = {
    "name": "ops",
    "channel": "webhook",
    "address": "https://1.1.1.1/hook",
    "style": "plain",
    "enabled": "on",
}


@pytest.fixture(autouse=True)
def models() -> dict[str, RegisteredModel]:
    names = ("churn", "houses")
    return {n: RegisteredModel.objects.get_or_create(name=n, defaults={"title": n})[0] for n in names}


@pytest.fixture
def reader(staff: Staff, models: dict[str, RegisteredModel]) -> Client:
    """A staff member who may read the log of churn alone."""
    return staff("read_log", only=models["churn"], name="reader")


def subscribed(owner: str, **values: Any) -> Subscription:
    user = User.objects.get(username=owner)
    fields = {"name": owner, "channel": "webhook", "address": "https://1.1.1.1/", "secret": "whsec_c2VjcmV0"}
    return Subscription.objects.create(owner=user, **fields | values)


def happen(*models: str) -> None:
    for model in models:
        with transaction.atomic():
            emit("drift.found", model=model, subject="version 1", data={"columns": ["<b>tenure</b>"]})
    placing.place_all()


def test_staff_see_events_of_their_models_and_their_own_subscriptions(reader: Client, staff: Staff) -> None:
    boss = User.objects.create_superuser("boss")
    mine, other = subscribed("reader"), subscribed("boss", secret="whsec_b3RoZXI=")
    happen("churn", "houses")
    page = reader.get(EVENTS).content.decode()
    assert page.count("<code>drift.found</code>") == 1 and "houses" not in page
    houses = Event.objects.get(model="houses")
    assert reader.get(f"{EVENTS}{houses.pk}/change/").status_code in (302, 404)
    assert reader.get(f"{EVENTS}of/{houses.message_id}/").status_code == 404
    lists = reader.get(SUBSCRIPTIONS).content.decode() + reader.get(DELIVERIES).content.decode()
    assert "reader" in lists and "boss" not in lists
    assert Delivery.objects.filter(subscription=other).count() == 2
    for row in Delivery.objects.filter(subscription=other):
        assert reader.post(f"{DELIVERIES}{row.pk}/replay/").status_code == 404
    for route in ("test", "rotate-secret", "replay"):
        assert reader.post(f"{SUBSCRIPTIONS}{other.pk}/{route}/").status_code == 404
    other.refresh_from_db()
    assert other.secret == "whsec_b3RoZXI="
    everything = Client()
    everything.force_login(boss)
    page = everything.get(SUBSCRIPTIONS).content.decode()
    assert f"{SUBSCRIPTIONS}{mine.pk}/change/" in page and f"{SUBSCRIPTIONS}{other.pk}/change/" in page
    assert "&lt;b&gt;tenure" in everything.get(f"{EVENTS}{houses.pk}/change/").content.decode()


def test_staff_without_the_right_see_nothing_of_events(staff: Staff) -> None:
    blind = staff("predict", name="blind")
    for place in (SUBSCRIPTIONS, EVENTS, DELIVERIES, f"{SUBSCRIPTIONS}add/"):
        assert blind.get(place).status_code == 403
    assert SUBSCRIPTIONS not in blind.get("/admin/").content.decode()


def test_a_webhook_from_the_form_shows_its_secret_once(reader: Client) -> None:
    answer = reader.post(f"{SUBSCRIPTIONS}add/", FORM | {"kinds": ["drift.found"], "models": ["churn"]})
    match = re.search(r'id="vg-key">(whsec_[^<]+)<', answer.content.decode())
    assert match is not None, answer.content.decode()[-3000:]
    row = Subscription.objects.get()
    assert (row.secret, row.owner.username, row.kinds, row.models) == (
        match[1].replace("&#x2B;", "+"), "reader", ["drift.found"], ["churn"],
    )  # fmt: skip
    for place in (SUBSCRIPTIONS, f"{SUBSCRIPTIONS}{row.pk}/change/", f"{SUBSCRIPTIONS}{row.pk}/history/"):
        assert row.secret not in reader.get(place).content.decode()
    rotated = reader.post(f"{SUBSCRIPTIONS}{row.pk}/rotate-secret/").content.decode()
    row.refresh_from_db()
    assert row.secret != match[1] and "the earlier secret too" in rotated
    assert row.secret not in str([*LogEntry.objects.values()]) + str([*reader.session.items()])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"address": "https://169.254.169.254/"}, "is an internal address"),
        ({"address": "http://1.1.1.1/"}, "must begin with https://"),
        ({"models": ["houses"]}, "Select a valid choice"),
        ({"kinds": ["no.kind"]}, "Select a valid choice"),
        ({"channel": "email", "address": "ana@example.com"}, "this service sends no mail"),
        ({"name": ""}, "This field is required"),
        ({"name": "taken"}, "already exists"),
    ],
)
def test_an_invalid_form_says_what_is_wrong(
    reader: Client, settings: Any, changes: dict[str, Any], message: str
) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    subscribed("reader", name="taken")
    answer = reader.post(f"{SUBSCRIPTIONS}add/", FORM | changes)
    assert answer.status_code == 200 and message in answer.content.decode()
    assert Subscription.objects.count() == 1


def test_a_slack_address_is_kept_by_an_empty_field_and_shown_nowhere(reader: Client) -> None:
    address = "https://hooks.slack.com/services/T0/B0/token"
    row = subscribed("reader", channel="slack", address=address, secret="")
    here = f"{SUBSCRIPTIONS}{row.pk}/change/"
    assert "token" not in reader.get(here).content.decode().replace("csrfmiddlewaretoken", "")
    changed = FORM | {"channel": "slack", "address": "", "name": "renamed"}
    assert reader.post(here, changed).status_code == 302
    row.refresh_from_db()
    assert (row.name, row.address) == ("renamed", address)
    assert reader.post(here, {**changed, "enabled": ""}).status_code == 302
    row.refresh_from_db()
    assert not row.enabled and row.disabled_at is not None


def test_dead_letters_and_spans_are_queued_from_the_page(reader: Client) -> None:
    row = subscribed("reader")
    happen("churn", "churn")
    row.deliveries.update(state="dead", finished_at=timezone.now())
    first = row.deliveries.first()
    assert first is not None
    here = f"{SUBSCRIPTIONS}{row.pk}/"
    assert reader.post(f"{DELIVERIES}{first.pk}/replay/", {"back": "subscription"}).url == f"{here}change/"
    assert row.deliveries.filter(state="pending").count() == 1
    reader.post(f"{here}replay/", {"dead": "1"})
    assert row.deliveries.filter(state="pending").count() == 2
    row.deliveries.all().delete()
    answer = reader.post(f"{here}replay/", {"since": "2026-01-01T00:00"}, follow=True)
    assert "2 deliveries are queued" in answer.content.decode() and row.deliveries.count() == 2
    answer = reader.post(f"{here}replay/", {"since": "soon"}, follow=True)
    assert "enter the start of the span" in answer.content.decode()
    for route in ("test", "rotate-secret", "replay"):  # a GET changes nothing
        assert reader.get(f"{here}{route}/").status_code == 302
    secret = row.secret
    row.refresh_from_db()
    assert row.secret == secret


def test_the_number_of_queries_of_a_list_does_not_grow_with_its_rows(reader: Client) -> None:
    def queries() -> list[int]:
        counts = []
        for place in (SUBSCRIPTIONS, EVENTS, DELIVERIES):
            with CaptureQueriesContext(connection) as captured:
                assert reader.get(place).status_code == 200
            counts.append(len(captured))
        return counts

    subscribed("reader", name="first")
    happen("churn")
    few = queries()
    for number in range(5):
        subscribed("reader", name=f"s{number}")
    happen(*["churn"] * 10)
    assert queries() == few


def test_the_form_says_that_a_user_has_too_many_subscriptions(
    reader: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "MOST", 1)
    subscribed("reader")
    page = reader.post(f"{SUBSCRIPTIONS}add/", FORM)
    assert "may have no more" in page.content.decode() and Subscription.objects.count() == 1
