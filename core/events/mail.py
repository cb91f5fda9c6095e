"""Mails about events, through Django's backends: plain text and HTML, several messages in one mail."""

from __future__ import annotations

import smtplib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from core.events.channels import Message, Undelivered
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMultiAlternatives
from django.core.validators import validate_email
from django.template.loader import render_to_string

from core.events import payloads
from core.events.addresses import AddressRefused

if TYPE_CHECKING:
    from core.models import Subscription

MOST_RECIPIENTS: Final = 20


def recipients(address: str) -> list[str]:
    """Returns the mail addresses of a list with commas.

    Raises
    ------
    AddressRefused : one of them is malformed, there are too many, or this service sends no mail.
    """
    if not settings.EMAIL_HOST:
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
            refusals = (
                f"{code} {text.decode('utf-8', 'replace')}" for code, text in error.recipients.values()
            )
            raise Undelivered(payloads.one_line(f"the mail server refused: {'; '.join(refusals)}")) from None
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
        f"{settings.EMAIL_SUBJECT_PREFIX}{subject}",
        render_to_string("core/events/mail.txt", context),
        to=to,
        headers={
            "Auto-Submitted": "auto-generated",
            "X-Vigia-Events": " ".join(each.id for each in messages[:20]),
        },
    )
    made.attach_alternative(render_to_string("core/events/mail.html", context), "text/html")
    return made
