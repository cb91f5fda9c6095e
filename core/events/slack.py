"""Messages for Slack's incoming webhooks, and for the services that take the same payload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from core.events import addresses, http, payloads
from core.events.channels import Message
from core.models import Subscription

LONGEST_HEADER: Final = 150
LONGEST_FIELD: Final = 2000
JOINER: Final = "\N{WORD JOINER}"


class SlackChannel:
    def check(self, address: str) -> None:
        addresses.check(address)

    def send(self, subscription: Subscription, messages: Sequence[Message]) -> str:
        """Sends each message as a request of its own; returns the last answer in words."""
        return [self._send(subscription, message) for message in messages][-1]

    def _send(self, subscription: Subscription, message: Message) -> str:
        body = payloads.as_json(payload(message))
        return http.deliver(subscription.address, body, {"Content-Type": "application/json; charset=utf-8"})


def payload(message: Message) -> dict[str, Any]:
    """Returns text and blocks of a message; `text` is for notifications and for services without blocks."""
    headline, facts, page = payloads.headline(message), payloads.facts(message), payloads.page(message)
    at = f"{message.at:%Y-%m-%d %H:%M:%S} UTC"
    lines = [headline, *(f"{name}: {value}" for name, value in facts), at]
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _text(headline, LONGEST_HEADER)},
        {
            "type": "section",
            "fields": [_text(f"{name}: {value}", LONGEST_FIELD) for name, value in facts],
        },
        {"type": "context", "elements": [_text(f"{at} · {message.kind} · {message.id}", LONGEST_FIELD)]},
    ]
    if page:
        lines.append(page)
        link = {"type": "mrkdwn", "text": f"<{page}|Open in Vigía>"}
        blocks.append({"type": "section", "text": link})
    return {
        "text": escaped("\n".join(lines)),
        "mrkdwn": False,
        "unfurl_links": False,
        "unfurl_media": False,
        "blocks": [block for block in blocks if block.get("fields", True)],
    }


def _text(text: str, longest: int) -> dict[str, str]:
    """Returns a text object that Slack shows as it is: it formats no `plain_text` and names nobody in it."""
    words = escaped(text)
    if len(words) > longest:
        words = escaped(text[: (longest - 1) // 5]) + "…"  # a character takes at most five as an entity
    return {"type": "plain_text", "text": words}


def escaped(text: str) -> str:
    """Returns a text in which Slack reads no mention and no link, and Mattermost and Discord no mention.

    They notify people at a bare ``@here`` or ``@everyone``; a word joiner after the @ prevents it.
    """
    entities = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return entities.replace("@", f"@{JOINER}")
