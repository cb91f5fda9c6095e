"""Subscriptions and events over the API: rights, secrets, filters, tests, replays."""

from __future__ import annotations

import datetime as dt
import ipaddress
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import transaction
from django.utils import timezone
from rest_framework.test import APIClient
from standardwebhooks.webhooks import Webhook

from core.events import emit, http, placing, sending, subscriptions, trials
from core.models import Delivery, Event, Subscription
from tests.conftest import assert_error, keyed
from tests.core.events.receivers import OK, answer, hanging, receiver
from tests.core.events.recording import running
from training.models import GroupScope, RegisteredModel

SUBSCRIPTIONS, EVENTS = "/api/v1/subscriptions/", "/api/v1/events/"
PUBLIC = "https://1.1.1.1/hook"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.EVENTS_ALLOW_INTERNAL = [ipaddress.ip_network("127.0.0.0/8")]


@pytest.fixture
def models() -> dict[str, RegisteredModel]:
    return {
        name: RegisteredModel.objects.get_or_create(name=name, defaults={"title": name})[0]
        for name in ("churn", "houses")
    }


@pytest.fixture
def reader(models: dict[str, RegisteredModel]) -> APIClient:
    """A client that may read the log of churn alone, and predict with houses."""
    user = User.objects.create_user("reader")
    for right, model in (("read_log", "churn"), ("predict", "houses")):
        group = Group.objects.create(name=right)
        group.permissions.set(Permission.objects.filter(codename=right))
        GroupScope.objects.create(group=group).registered_models.add(models[model])
        user.groups.add(group)
    return keyed(user)


def subscribe(client: APIClient, **values: Any) -> Any:
    body = {"name": "ops", "channel": "webhook", "address": PUBLIC} | values
    return client.post(SUBSCRIPTIONS, body, format="json")


def happen(*facts: tuple[str, str]) -> None:
    """Writes events of kinds and models, and places them."""
    for kind, model in facts:
        with transaction.atomic():
            emit(kind, model=model, subject="version 3", data={"version": 3})
    placing.place()


ALL = (
    ("version.activated", "churn"),
    ("drift.found", "churn"),
    ("version.activated", "houses"),
    ("key.created", ""),
)


def test_a_secret_is_shown_once(reader: APIClient) -> None:
    made = subscribe(reader)
    assert made.status_code == 201, made.content
    assert made.json()["secret"].startswith("whsec_")
    here = made.headers["Location"].removeprefix("http://testserver")
    for seen in (
        reader.get(here),
        reader.get(SUBSCRIPTIONS),
        reader.patch(here, {"name": "b"}, format="json"),
    ):
        assert seen.status_code == 200 and "whsec_" not in seen.content.decode()
    assert made.json()["links"]["deliveries"] == f"http://testserver{here}deliveries/"


def test_a_slack_address_is_never_shown_whole(reader: APIClient) -> None:
    made = subscribe(reader, channel="slack", address="https://1.1.1.1/services/T0/B0/token")
    assert made.json()["address"] == "https://1.1.1.1/…" and made.json()["secret"] is None
    for seen in (made, reader.get(SUBSCRIPTIONS)):
        assert "token" not in seen.content.decode()


def test_a_repeated_idempotency_key_makes_one_subscription(
    reader: APIClient,
) -> None:
    body = {"name": "ops", "channel": "webhook", "address": PUBLIC}
    first, again = (
        reader.post(SUBSCRIPTIONS, body, format="json", headers={"Idempotency-Key": "k"}) for _ in range(2)
    )
    assert first.json() == again.json() and again.headers["Idempotent-Replayed"] == "true"
    assert Subscription.objects.count() == 1
    assert_error(subscribe(reader), 409, "name_taken")


@pytest.mark.parametrize(
    "address",
    [
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/",
        "http://1.1.1.1/",
        "https://[::1]/",
        "ftp://1.1.1.1/",
    ],
)
def test_an_address_that_may_not_be_sent_to_is_refused_at_saving(reader: APIClient, address: str) -> None:
    assert_error(subscribe(reader, address=address), 400, "address_refused")
    assert_error(subscribe(reader, channel="slack", address=address), 400, "address_refused")
    made = subscribe(reader).json()
    assert_error(
        reader.patch(f"{SUBSCRIPTIONS}{made['id']}/", {"address": address}, format="json"),
        400,
        "address_refused",
    )
    assert Subscription.objects.get().address == PUBLIC


@pytest.mark.parametrize(
    ("values", "field", "code"),
    [
        ({"kinds": ["version.actived"]}, "kinds", "not_a_level"),
        ({"kind": ["version.activated"]}, "kind", "unknown_field"),
        ({"channel": "pigeon"}, "channel", "invalid_choice"),
        ({"digest_minutes": 5}, "digest_minutes", "not_for_channel"),
        ({"channel": "slack", "style": "cloudevents"}, "style", "not_for_channel"),
        ({"name": "a\r\nBcc: b"}, "name", "not_text"),
        ({"name": ""}, "name", "null_not_allowed"),
        ({"models": ["../churn"]}, "models", "invalid"),
        ({"enabled": "perhaps"}, "enabled", "invalid"),
    ],
)
def test_an_invalid_field_is_named(reader: APIClient, values: dict[str, Any], field: str, code: str) -> None:
    error = assert_error(subscribe(reader, **values), 400, "invalid_input")
    assert (error["details"][0].get("field"), error["details"][0]["code"]) == (field, code)
    assert not Subscription.objects.exists()


def test_a_subscription_needs_the_right_to_read_a_log(models: Any, reader: APIClient) -> None:
    stranger = keyed(User.objects.create_user("stranger"))
    assert_error(subscribe(stranger), 403, "forbidden")
    assert_error(subscribe(reader, models=["houses"]), 403, "forbidden")
    assert_error(subscribe(reader, models=["no_such_model"]), 403, "forbidden")
    assert stranger.get(EVENTS).json()["events"] == []
    assert subscribe(reader, models=["churn"]).status_code == 201


def test_events_that_the_owner_may_not_see_do_not_reach_it(
    models: Any, reader: APIClient, api: APIClient
) -> None:
    subscribe(reader)
    assert subscribe(api, name="all").status_code == 201
    happen(*ALL)
    listed = reader.get(EVENTS).json()["events"]
    assert {event["model"] for event in listed} == {"churn"} and len(listed) == 2
    assert {row.event.model for row in Delivery.objects.filter(subscription__name="ops")} == {"churn"}
    # Every right, but not the one to see the list of keys.
    assert {row.event.model for row in Delivery.objects.filter(subscription__name="all")} == {
        "churn",
        "houses",
    }
    user = User.objects.get(username="tester")
    user.user_permissions.add(Permission.objects.get(codename="view_authtoken"))
    happen(("key.created", ""))
    assert Delivery.objects.filter(subscription__name="all", event__model="").count() == 1
    assert api.get(f"{EVENTS}?kind=key.created").json()["events"][0]["model"] is None


def test_events_reach_no_owner_who_lost_the_right_meanwhile(models: Any, reader: APIClient) -> None:
    here = f"{SUBSCRIPTIONS}{subscribe(reader).json()['id']}/"
    happen(*ALL)
    Group.objects.get(name="read_log").permissions.clear()
    assert sending.claim(uuid.uuid4(), (), 10) == []
    assert reader.get(f"{here}deliveries/").json()["deliveries"] == []
    assert_error(reader.patch(here, {"name": "b"}, format="json"), 403, "forbidden")
    # To stop needs no right.
    assert reader.patch(here, {"enabled": False}, format="json").json()["enabled"] is False
    assert reader.delete(here).status_code == 204


def test_nobody_else_sees_a_subscription_but_a_superuser(reader: APIClient, api: APIClient) -> None:
    here = f"{SUBSCRIPTIONS}{subscribe(reader).json()['id']}/"
    assert api.get(SUBSCRIPTIONS).json() == {"subscriptions": []}
    asked = (
        api.get(here),
        api.patch(here, {}, format="json"),
        api.delete(here),
        api.get(f"{here}deliveries/"),
    )
    posts = [api.post(f"{here}{route}/") for route in ("test", "rotate-secret", "deliveries/1/replay")]
    for response in (*asked, *posts, api.post(f"{here}replay/", {"dead_letters": True}, format="json")):
        assert_error(response, 404, "not_found")
    root = keyed(User.objects.create_superuser("root"))
    assert root.get(here).json()["owner"] == "reader"


def test_filters_of_a_subscription(models: Any, api: APIClient) -> None:
    subscribe(api, name="kind", kinds=["drift.found"])
    subscribe(api, name="model", models=["houses"])
    subscribe(api, name="both", kinds=["drift.found"], models=["houses"])
    happen(*ALL)
    counts = {row.name: row.deliveries.count() for row in Subscription.objects.all()}
    assert counts == {"kind": 1, "model": 1, "both": 0}


def test_the_list_of_events_filters_and_pages(models: Any, reader: APIClient) -> None:
    start = timezone.now()
    happen(*[("version.activated", "churn")] * 150, ("drift.found", "churn"))
    first = reader.get(EVENTS)
    assert len(first.json()["events"]) == 100 and first.json()["events"][0]["type"] == "drift.found"
    assert first.headers["Link"] == f'<{first.json()["next"]}>; rel="next"'
    second = reader.get(first.json()["next"]).json()
    assert len(second["events"]) == 51 and second["next"] is None
    assert len({event["id"] for event in first.json()["events"] + second["events"]}) == 151
    assert len(reader.get(f"{EVENTS}?kind=drift.found&model=churn").json()["events"]) == 1
    assert reader.get(f"{EVENTS}?model=houses").json()["events"] == []
    assert reader.get(EVENTS, {"until": start.isoformat()}).json()["events"] == []
    assert len(reader.get(EVENTS, {"since": start.isoformat()}).json()["events"]) == 100
    for bad in ("kind=nothing", "since=", "cursor=x", "cursor=0"):
        assert_error(reader.get(f"{EVENTS}?{bad}"), 400, "invalid_input")


@pytest.mark.django_db(transaction=True)
def test_a_test_message_shows_the_receivers_answer_and_is_signed(reader: APIClient) -> None:
    accepts = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    with running(), receiver(accepts, answer(b"HTTP/1.1 404 No\r\n\r\n")) as there:
        made = subscribe(reader, address=there.address).json()
        here = f"{SUBSCRIPTIONS}{made['id']}/test/"
        good, bad = reader.post(here).json(), reader.post(here).json()
    assert good["delivered"] and good["answer"].startswith("200 OK in ")
    assert good["answer"].endswith(": hello")
    assert not bad["delivered"] and "404 Not Found" in bad["answer"]
    payload = Webhook(made["secret"]).verify(there.requests[0].body, there.requests[0].headers)
    assert payload["type"] == "subscription.test"
    assert not Delivery.objects.exists() and not Event.objects.filter(kind="subscription.test").exists()


def test_a_test_needs_the_right_as_events_do(reader: APIClient) -> None:
    here = f"{SUBSCRIPTIONS}{subscribe(reader).json()['id']}/test/"
    Group.objects.get(name="read_log").user_set.clear()
    assert_error(reader.post(here), 403, "forbidden")


def test_a_user_has_a_limited_number_of_subscriptions(
    reader: APIClient, api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "MOST", 2)
    made = [subscribe(reader, name=f"ops {n}") for n in range(3)]
    assert [each.status_code for each in made] == [201, 201, 409]
    assert_error(made[2], 409, "too_many_subscriptions")
    first = f"{SUBSCRIPTIONS}{made[0].json()['id']}/"
    assert reader.patch(first, {"name": "new"}, format="json").status_code == 200
    assert subscribe(api, name="of another").status_code == 201
    assert reader.delete(first).status_code == 204
    assert subscribe(reader, name="ops 3").status_code == 201


@pytest.mark.django_db(transaction=True)
def test_a_test_without_a_dispatcher_and_one_that_hangs_say_so(
    reader: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "SEND_SECONDS", 0.3)
    monkeypatch.setattr(trials, "CLAIM_SECONDS", 0.5)
    with receiver(hanging) as there:
        here = f"{SUBSCRIPTIONS}{subscribe(reader, address=there.address).json()['id']}/test/"
        alone = reader.post(here).json()
        said = "the test was not sent: the process “events” does not run; ask the operator to start it"
        assert alone == {"delivered": False, "answer": said}
        monkeypatch.setattr(trials, "CLAIM_SECONDS", 5.0)
        with running():
            hung = reader.post(here).json()
    assert hung == {"delivered": False, "answer": "the receiver did not answer within 0 s"}


@pytest.mark.django_db(transaction=True)
def test_a_rotation_signs_with_both_secrets_for_a_time(reader: APIClient) -> None:
    with running(), receiver(answer(OK)) as there:
        made = subscribe(reader, address=there.address).json()
        rotated = reader.post(f"{SUBSCRIPTIONS}{made['id']}/rotate-secret/").json()
        reader.post(f"{SUBSCRIPTIONS}{made['id']}/test/")
        at_once = reader.post(
            f"{SUBSCRIPTIONS}{made['id']}/rotate-secret/", {"keep_hours": 0}, format="json"
        ).json()
        reader.post(f"{SUBSCRIPTIONS}{made['id']}/test/")
    both, single = there.requests
    assert rotated["secret"] != made["secret"]
    kept = dt.datetime.fromisoformat(rotated["previous_until"]) - timezone.now()
    assert dt.timedelta(hours=23, minutes=59) < kept < dt.timedelta(hours=24)
    for secret in (made["secret"], rotated["secret"]):
        Webhook(secret).verify(both.body, both.headers)
    assert single.headers["webhook-signature"].count("v1,") == 1
    Webhook(at_once["secret"]).verify(single.body, single.headers)
    slack = subscribe(reader, name="s", channel="slack").json()
    assert_error(reader.post(f"{SUBSCRIPTIONS}{slack['id']}/rotate-secret/"), 409, "no_secret")


def test_dead_letters_and_spans_are_delivered_again(models: Any, reader: APIClient) -> None:
    made = subscribe(reader).json()
    here = f"{SUBSCRIPTIONS}{made['id']}/"
    start = timezone.now()
    happen(*ALL)
    rows = Delivery.objects.filter(subscription_id=made["id"])
    rows.update(state="dead", finished_at=timezone.now(), attempts=24, error="the receiver answered 500")
    listed = reader.get(f"{here}deliveries/?state=dead").json()["deliveries"]
    assert [each["event"]["type"] for each in listed] == ["drift.found", "version.activated"]
    assert listed[0]["attempts"] == 24 and listed[0]["error"] == "the receiver answered 500"
    one = reader.post(f"{here}deliveries/{listed[1]['id']}/replay/")
    assert one.status_code == 202 and one.json()["state"] == "pending" and one.json()["attempts"] == 0
    assert rows.filter(state="pending").count() == 1
    assert reader.post(f"{here}replay/", {"dead_letters": True}, format="json").json() == {"queued": 1}
    assert rows.filter(state="pending").count() == 2
    rows.all().delete()  # as if the subscription had been made later
    span = {"since": start.isoformat(), "until": timezone.now().isoformat()}
    assert reader.post(f"{here}replay/", span, format="json").json() == {"queued": 2}
    assert {row.event.model for row in rows} == {"churn"}
    for bad in ({}, {"dead_letters": True, **span}, {"until": span["until"]}, {"dead_letters": False}):
        assert_error(reader.post(f"{here}replay/", bad, format="json"), 400, "invalid_input")
    assert_error(reader.get(f"{here}deliveries/?state=gone"), 400, "invalid_input")
    assert_error(reader.post(f"{here}deliveries/{2**70}/replay/"), 404, "not_found")


def test_a_subscription_is_changed_disabled_and_enabled_again(reader: APIClient) -> None:
    here = f"{SUBSCRIPTIONS}{subscribe(reader).json()['id']}/"
    off = reader.patch(here, {"enabled": False, "kinds": ["drift.found"]}, format="json").json()
    assert not off["enabled"] and off["disabled_at"] and off["kinds"] == ["drift.found"]
    on = reader.patch(here, {"enabled": True}, format="json").json()
    assert on["enabled"] and on["disabled_at"] is None and on["kinds"] == ["drift.found"]
    assert_error(reader.patch(here, {"channel": "slack"}, format="json"), 400, "invalid_input")
    assert_error(reader.get(f"{SUBSCRIPTIONS}{2**70}/"), 404, "not_found")


def test_every_route_has_a_browsable_page_and_answers_options(models: Any, reader: APIClient) -> None:
    made = subscribe(reader).json()
    happen(*ALL)
    here = f"{SUBSCRIPTIONS}{made['id']}/"
    delivery = Delivery.objects.filter(subscription_id=made["id"]).first()
    assert delivery is not None
    routes = ["", "test/", "rotate-secret/", "replay/", "deliveries/", f"deliveries/{delivery.pk}/replay/"]
    for route in [EVENTS, SUBSCRIPTIONS, *(here + route for route in routes)]:
        page = reader.get(route, headers={"Accept": "text/html"})
        assert page.status_code in (200, 405) and b"<html" in page.content, route
        assert reader.options(route).status_code == 200, route
        assert reader.head(route).status_code in (200, 405), route
