"""The forms of a message: plain JSON, CloudEvents, and words for people."""

from __future__ import annotations

import json
from typing import Any, Final

from django.conf import settings
from django.utils.text import capfirst

from core.events import kinds
from core.events.channels import Message
from core.events.kinds import EventKind

TYPE_PREFIX: Final = "vigia."
"""Begins the CloudEvents type, which is unique among all senders of a receiver."""
TEST: Final = EventKind("subscription.test", "test", "A person or a client has asked for a test message.")
"""The kind of test messages. It is not in the table of kinds, so no filter and no event can have it."""
LONGEST_HEADLINE: Final = 150
MOST_FACTS: Final = 10
LONGEST_FACT: Final = 300


def plain(message: Message) -> dict[str, Any]:
    """Returns the payload that Standard Webhooks recommends, with id, model and subject."""
    return {
        "id": message.id,
        "type": message.kind,
        "timestamp": message.at.isoformat(),
        "model": message.model or None,
        "subject": message.subject,
        "data": message.data,
    }


def cloud_event(message: Message) -> dict[str, Any]:
    """Returns the event in the JSON format of CloudEvents 1.0, with the model as an extension."""
    return {
        "specversion": "1.0",
        "id": message.id,
        "source": message.source,
        "type": TYPE_PREFIX + message.kind,
        "subject": message.subject,
        "time": message.at.isoformat(),
        **({"model": message.model} if message.model else {}),
        "datacontenttype": "application/json",
        "data": message.data,
    }


def as_json(payload: dict[str, Any]) -> bytes:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def headline(message: Message) -> str:
    """Returns title, model and subject of a message on one line, such as the subject of a mail."""
    words = one_line(f"{capfirst(title_of(message.kind))}: {message.model} {message.subject}")
    return words if len(words) <= LONGEST_HEADLINE else words[: LONGEST_HEADLINE - 1] + "…"


def title_of(kind: str) -> str:
    known = kinds.TABLE | {TEST.name: TEST}
    return known[kind].title if kind in known else kind


def facts(message: Message) -> list[tuple[str, str]]:
    """Returns the names and values of a message's data as text, without those that are empty."""
    pairs = [
        (one_line(name.replace("_", " ")), _in_words(value))
        for name, value in message.data.items()
        if value not in (None, "", [], {})
    ]
    return pairs[:MOST_FACTS]


def page(message: Message) -> str:
    """Returns the address of the event's page in the admin; empty without PUBLIC_URL."""
    if not settings.PUBLIC_URL or message.kind == TEST.name:
        return ""
    return f"{settings.PUBLIC_URL}/admin/core/event/of/{message.id}/"


def one_line(text: str) -> str:
    """Returns a text without line breaks and other control characters, which could end a header."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _in_words(value: Any) -> str:
    text = one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= LONGEST_FACT else text[: LONGEST_FACT - 1] + "…"
