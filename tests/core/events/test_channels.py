"""Channels: signatures that the standard's own library verifies, Slack's payload, mails."""

from __future__ import annotations

import datetime as dt
import email
import ipaddress
import json
import socket
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import default
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from django.contrib.auth.models import User
from django.utils import timezone
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from core.events import channels, payloads, slack, webhook
from core.events.addresses import AddressRefused
from core.events.channels import Message, Undelivered
from core.models import Delivery, Subscription
from tests.core.events.receivers import OK, Receiver, answer, receiver
from tests.core.events.recording import deliver, write

HOSTILE = (
    "a\r\nBcc: x@y.example\r\n\r\n<script>alert(1)</script> <!channel> <@U1> @here @everyone &"
    " \u2028\x00\x1b[31m"
)


@pytest.fixture(autouse=True)
def _loopback(settings: Any) -> None:
    settings.EVENTS_ALLOW_INTERNAL = [ipaddress.ip_network("127.0.0.0/8")]


def message(**changes: Any) -> Message:
    values = {
        "id": "0193a1b2-0000-7000-8000-000000000001",
        "kind": "version.activated",
        "at": dt.datetime(2026, 11, 30, 12, 0, 0, 250_000, dt.UTC),
        "model": "churn",
        "subject": "version 4",
        "data": {"version": 4, "previous": 3, "actor": "ana", "reason": "bessere Güte", "overridden": False},
        "source": "vigia",
    }
    return Message(**(values | changes))


def subscription(channel: str, address: str, **changes: Any) -> Subscription:
    return Subscription(name="ops", owner=User(username="ana"), channel=channel, address=address, **changes)


def send(row: Subscription, *messages: Message) -> str:
    return channels.TABLE[row.channel].send(row, messages or [message()])


def verify(secret: str, there: Receiver) -> Any:
    (request,) = there.requests
    return Webhook(secret).verify(request.body, request.headers)


def test_the_standards_library_verifies_a_webhook() -> None:
    secret = webhook.new_secret()
    with receiver(answer(OK)) as there:
        assert send(subscription("webhook", there.address, secret=secret)).startswith("204 No Content")
    assert verify(secret, there) == {
        "id": "0193a1b2-0000-7000-8000-000000000001",
        "type": "version.activated",
        "timestamp": "2026-11-30T12:00:00.250000+00:00",
        "model": "churn",
        "subject": "version 4",
        "data": {"version": 4, "previous": 3, "actor": "ana", "reason": "bessere Güte", "overridden": False},
    }
    assert there.requests[0].headers["content-type"] == "application/json; charset=utf-8"
    assert there.requests[0].headers["webhook-id"] == message().id
    with pytest.raises(WebhookVerificationError):
        verify(webhook.new_secret(), there)
    there.requests[0].body = there.requests[0].body.replace(b'"version":4', b'"version":5')
    with pytest.raises(WebhookVerificationError):
        verify(secret, there)


def test_after_a_rotation_either_secret_verifies_until_the_earlier_one_ends() -> None:
    old, new = webhook.new_secret(), webhook.new_secret()
    soon, past = timezone.now() + dt.timedelta(hours=1), timezone.now() - dt.timedelta(seconds=1)
    with receiver(answer(OK)) as there:
        send(subscription("webhook", there.address, secret=new, previous_secret=old, previous_until=soon))
    assert verify(new, there) == verify(old, there)
    with receiver(answer(OK)) as there:
        send(subscription("webhook", there.address, secret=new, previous_secret=old, previous_until=past))
    assert verify(new, there)
    with pytest.raises(WebhookVerificationError):
        verify(old, there)


def test_a_secret_is_random_and_as_long_as_the_standard_wants() -> None:
    secrets = {webhook.new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(each.startswith("whsec_") and len(each) == 6 + 44 for each in secrets)


def test_a_cloud_event_is_in_structured_mode_and_signed_too() -> None:
    secret = webhook.new_secret()
    row = {"style": Subscription.Style.CLOUDEVENTS, "secret": secret}
    with receiver(answer(OK)) as there:
        send(subscription("webhook", there.address, **row))
    event = verify(secret, there)
    assert there.requests[0].headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert event["data"]["reason"] == "bessere Güte"
    assert {name: event[name] for name in event if name != "data"} == {
        "specversion": "1.0",
        "id": message().id,
        "source": "vigia",
        "type": "vigia.version.activated",
        "subject": "version 4",
        "model": "churn",
        "time": "2026-11-30T12:00:00.250000+00:00",
        "datacontenttype": "application/json",
    }


def test_hostile_names_and_reasons_reach_no_header_and_no_other_field() -> None:
    secret = webhook.new_secret()
    with receiver(answer(OK)) as there:
        send(
            subscription("webhook", there.address, secret=secret),
            message(subject=HOSTILE, data={"reason": HOSTILE}),
        )
    assert verify(secret, there)["data"]["reason"] == HOSTILE
    assert set(there.requests[0].headers) == {
        "host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length",
        "webhook-id", "webhook-timestamp", "webhook-signature",
    }  # fmt: skip


def test_slack_gets_text_and_blocks_without_mentions(caplog: pytest.LogCaptureFixture) -> None:
    with receiver(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")) as there:
        assert send(subscription("slack", there.address), message(data={"reason": HOSTILE})).endswith(": ok")
    assert "/hook" not in caplog.text  # the address is a secret
    payload = json.loads(there.requests[0].body)
    assert payload["text"].startswith(
        "Version activated: churn version 4\nreason: a Bcc: x@\u2060y.example &lt;script"
    )
    words = json.dumps(payload, ensure_ascii=False)
    assert "<" not in words and ">" not in words
    for mention in ("@here", "@everyone", "@U1", "\\u0000", "\\r", "\x1b"):
        assert mention not in words
    assert "&amp;" in words
    assert [block["type"] for block in payload["blocks"]] == ["header", "section", "context"]
    assert payload["blocks"][0]["text"] == {
        "type": "plain_text",
        "text": "Version activated: churn version 4",
    }


def test_slacks_limits_hold_for_long_texts_too() -> None:
    long = message(subject="<" * 300, data={f"name{n}": "&" * 10_000 for n in range(50)})
    payload = slack.payload(long)
    assert len(payload["blocks"][0]["text"]["text"]) <= 150
    assert len(payload["blocks"][1]["fields"]) <= 10
    assert all(len(field["text"]) <= 2000 for field in payload["blocks"][1]["fields"])
    assert len(payload["text"]) < 40_000


def test_links_lead_to_the_page_of_the_event(settings: Any) -> None:
    settings.PUBLIC_URL = "https://vigia.example.com"
    page = f"https://vigia.example.com/admin/core/event/of/{message().id}/"
    assert payloads.page(message()) == page
    assert slack.payload(message())["blocks"][-1]["text"]["text"] == f"<{page}|Open in Vigía>"
    assert payloads.page(message(kind=payloads.TEST.name)) == ""


class Mailbox:
    """A handler of aiosmtpd that keeps mails, or refuses the recipients named ``nobody``."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.envelopes: list[Envelope] = []

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("nobody"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.envelopes.append(envelope)
        parsed = email.message_from_bytes(envelope.content, policy=default)
        assert isinstance(parsed, EmailMessage)
        self.mails.append(parsed)
        return "250 OK"


@pytest.fixture
def mailbox(settings: Any) -> Iterator[Mailbox]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    box = Mailbox()
    server = Controller(box, hostname="127.0.0.1", port=port)
    server.start()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_USE_TLS = "127.0.0.1", port, False
    settings.DEFAULT_FROM_EMAIL = "Vigía <vigia@example.com>"
    yield box
    server.stop()


def test_a_mail_is_plain_text_and_html(mailbox: Mailbox, settings: Any) -> None:
    settings.PUBLIC_URL = "https://vigia.example.com"
    said = send(subscription("email", "ana@example.com, Ops@example.com"))
    assert said == "the mail server took the mail to ana@example.com, Ops@example.com"
    (mail,), (envelope,) = mailbox.mails, mailbox.envelopes
    assert envelope.rcpt_tos == ["ana@example.com", "Ops@example.com"]
    assert envelope.mail_from == "vigia@example.com"
    assert mail["Subject"] == "[Vigía] Version activated: churn version 4"
    assert mail["From"] == "Vigía <vigia@example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None and html is not None
    assert "  reason: bessere Güte" in plain.get_content().splitlines()
    assert "2026-11-30 12:00:00 UTC" in plain.get_content()
    assert f"https://vigia.example.com/admin/core/event/of/{message().id}/" in plain.get_content()
    assert "<td" in html.get_content() and "bessere Güte" in html.get_content()


def test_a_digest_holds_several_messages_in_order(mailbox: Mailbox) -> None:
    several = [message(id=f"m{n}", subject=f"version {n}") for n in range(1, 4)]
    send(subscription("email", "ana@example.com", digest_minutes=60), *several)
    (mail,) = mailbox.mails
    assert mail["Subject"] == "[Vigía] 3 events"
    plain = mail.get_body(("plain",))
    assert plain is not None
    places = [plain.get_content().index(f"Version activated: churn version {n}") for n in range(1, 4)]
    assert places == sorted(places)


def test_a_repeated_mail_has_the_same_id_and_another_one_another(mailbox: Mailbox) -> None:
    row = subscription("email", "ana@example.com")
    send(row), send(row), send(row, message(id="other"))
    first, again, other = (mail["Message-ID"] for mail in mailbox.mails)
    assert first == again != other
    assert first.endswith("@example.com>")


def test_hostile_texts_make_no_header_and_no_markup_in_a_mail(mailbox: Mailbox) -> None:
    row = subscription("email", "ana@example.com")
    row.name = "<b>ops</b>"
    send(row, message(subject=HOSTILE, data={"reason": HOSTILE}))
    (mail,), (envelope,) = mailbox.mails, mailbox.envelopes
    assert envelope.rcpt_tos == ["ana@example.com"]
    assert mail["Bcc"] is None and "a Bcc: x@y.example <script>" in mail["Subject"]
    html = mail.get_body(("html",))
    assert html is not None
    assert "<script" not in html.get_content() and "<b>" not in html.get_content()
    assert "&lt;script&gt;" in html.get_content()


def test_a_mail_server_that_refuses_or_is_away_is_a_failure(mailbox: Mailbox, settings: Any) -> None:
    with pytest.raises(Undelivered, match=r"550.*no such mailbox"):
        send(subscription("email", "nobody@example.com"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        settings.EMAIL_PORT = free.getsockname()[1]
    with pytest.raises(Undelivered, match="refused"):
        send(subscription("email", "ana@example.com"))


def test_a_mail_server_that_hangs_is_given_up(settings: Any) -> None:
    with receiver(lambda connection: None) as there:  # a mail server greets first, this one waits
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_USE_TLS = "127.0.0.1", there.port, False
        settings.EMAIL_TIMEOUT = 0.2
        with pytest.raises(Undelivered, match="timed out"):
            send(subscription("email", "ana@example.com"))


@pytest.mark.parametrize(
    "address",
    [
        "",
        ",",
        "ana",
        "ana@",
        "ana@example.com\r\nBcc: x@y.example",
        "ana@example.com;b@c.example",
        "<ana@example.com>",
        ",".join(f"a{n}@example.com" for n in range(21)),
    ],
)
def test_a_malformed_mail_address_is_refused(address: str, settings: Any) -> None:
    settings.EMAIL_HOST = "127.0.0.1"
    with pytest.raises(AddressRefused):
        channels.TABLE["email"].check(address)


def test_without_a_mail_server_no_mail_address_is_accepted(settings: Any) -> None:
    settings.EMAIL_BACKEND, settings.EMAIL_HOST = "django.core.mail.backends.smtp.EmailBackend", ""
    with pytest.raises(AddressRefused, match="EMAIL_HOST"):
        channels.TABLE["email"].check("ana@example.com")
    with pytest.raises(Undelivered, match="EMAIL_HOST"):
        send(subscription("email", "ana@example.com"))


@pytest.mark.django_db(transaction=True)
def test_a_dispatcher_disables_a_webhook_that_answers_410_and_waits_as_long_as_one_asks() -> None:
    owner = User.objects.create_superuser("root")
    busy = b"HTTP/1.1 429 Busy\r\nRetry-After: 900\r\nContent-Length: 0\r\n\r\n"
    with (
        receiver(answer(b"HTTP/1.1 410 Gone\r\nContent-Length: 3\r\n\r\nbye")) as gone,
        receiver(answer(busy)) as asking,
    ):
        for name, there in (("gone", gone), ("asking", asking)):
            Subscription.objects.create(
                name=name, owner=owner, channel="webhook", address=there.address, secret=webhook.new_secret()
            )
        write("version 1", "version 2")
        deliver()
    row = Subscription.objects.get(name="gone")
    assert not row.enabled and row.disabled_at is not None
    assert (
        row.disabled_reason.startswith("the receiver answered 410 Gone in ") and "bye" in row.disabled_reason
    )
    assert len(gone.requests) == len(asking.requests) == 1
    waiting = Delivery.objects.filter(subscription__name="asking").earliest("position")
    pause = waiting.next_at - timezone.now()
    assert dt.timedelta(minutes=14) < pause <= dt.timedelta(minutes=15)
