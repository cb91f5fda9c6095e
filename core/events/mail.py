"""Mails about events, through Django's backends: plain text and HTML, several messages in one mail."""

from __future__ import annotations

import smtplib
import uuid
from collections.abc import Sequence
from email.utils import parseaddr
from typing import Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMultiAlternatives
from django.core.validators import validate_email
from django.template.loader import render_to_string

from core.events import payloads
from core.events.addresses import AddressRefused
from core.events.channels import Message, Undelivered
from core.models import Subscription

MOST_RECIPIENTS: Final = 20


def recipients(address: str) -> list[str]:
    """Returns the mail addresses of a list with commas.

    Raises
    ------
    AddressRefused : one of them is malformed, there are too many, or this service sends no mail.
    """
    if settings.EMAIL_BACKEND.endswith("smtp.EmailBackend") and not settings.EMAIL_HOST:
        raise AddressRefused("this service sends no mail: the operator sets EMAIL_HOST")
    found = [each.strip() for each in address.split(",") if each.strip()]
    if not 1 <= len(found) <= MOST_RECIPIENTS:
        raise AddressRefused(f"give 1 to {MOST_RECIPIENTS} mail addresses, separated by commas")
    for each in found:
        try:
            validate_email(each)
        except ValidationError:
            raise AddressRefused(f"{each[:80]!r} is not a mail address") from None
    return found


class EmailChannel:
    def check(self, address: str) -> None:
        recipients(address)

    def send(self, subscription: Subscription, messages: Sequence[Message]) -> str:
        """Sends all messages in one mail; returns the recipients.

        Raises
        ------
        Undelivered : the mail server cannot be reached, or refuses the mail.
        """
        try:
            to = recipients(subscription.address)
            mail(subscription, messages, to).send()
        except AddressRefused as error:
            raise Undelivered(error.message) from None
        except smtplib.SMTPRecipientsRefused as error:
            refusals = "; ".join(f"{to}: {code} {text!r}" for to, (code, text) in error.recipients.items())
            raise Undelivered(payloads.one_line(f"the mail server refused {refusals}")) from None
        except (smtplib.SMTPException, OSError) as error:
            raise Undelivered(payloads.one_line(f"the mail server did not take the mail: {error}")) from None
        return f"the mail server took the mail to {', '.join(to)}"


def mail(subscription: Subscription, messages: Sequence[Message], to: list[str]) -> EmailMultiAlternatives:
    shown = [
        {
            "headline": payloads.headline(each),
            "facts": payloads.facts(each),
            "page": payloads.page(each),
            "at": each.at,
            "kind": each.kind,
            "id": each.id,
        }
        for each in messages
    ]
    subject = shown[0]["headline"] if len(shown) == 1 else f"{len(shown)} events"
    context = {"messages": shown, "subscription": subscription, "subject": subject}
    made = EmailMultiAlternatives(
        f"[Vigía] {subject}",
        render_to_string("core/events/mail.txt", context),
        to=to,
        headers={"Auto-Submitted": "auto-generated", "Message-ID": _message_id(messages)},
    )
    made.attach_alternative(render_to_string("core/events/mail.html", context), "text/html")
    return made


def _message_id(messages: Sequence[Message]) -> str:
    """Returns the mail's id; a repeated mail about the same events has the same."""
    _, address = parseaddr(settings.DEFAULT_FROM_EMAIL)
    ids = uuid.uuid5(uuid.NAMESPACE_OID, " ".join(each.id for each in messages))
    return f"<{ids}@{address.rpartition('@')[2] or 'vigia'}>"
