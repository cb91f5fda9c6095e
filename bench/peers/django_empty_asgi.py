"""The empty Django behind Vigía's server: its protocol, its threads, no fast path."""

from __future__ import annotations

import asyncio
import io
from typing import Any

from bench.peers.django_empty import application as django_application
from web.limits import Limits
from web.threads import DjangoThreads


class Application:
    """What `web.worker` expects of an application."""

    def __init__(self) -> None:
        self.limits = Limits()

    def start(self, loop: asyncio.AbstractEventLoop, threads: int) -> None:
        self._django = DjangoThreads(django_application, loop, threads, self.limits)

    def close(self) -> None:
        self._django.close()

    def refusal(self, status: int) -> tuple[bytes, bytes]:
        return b"content-length: 0\r\n", b""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        pieces, more = [], True
        while more:
            message = await receive()
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(pieces)
        await self._django.answer(scope, io.BytesIO(body), len(body), send)


application = Application()
