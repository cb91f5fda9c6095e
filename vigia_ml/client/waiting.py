"""Runs flows with an asynchronous HTTP client and tasks, on asyncio or trio."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import httpx

from vigia_ml.client import wire
from vigia_ml.client.errors import NotReachable
from vigia_ml.client.flow import Effect, Flow, Gather, Reply, Request, Send, Sleep, Work

T = TypeVar("T")


class WaitingDriver:
    """The counterpart of `BlockingDriver` for coroutines."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def run(self, flow: Flow[T]) -> T:
        """Returns the flow's result."""
        try:
            effect = next(flow)
            while True:
                try:
                    result = await self._perform(effect)
                except Exception as error:
                    effect = flow.throw(error)
                else:
                    effect = flow.send(result)
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            flow.close()

    async def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Send):
            return await self._send(effect.request)
        if isinstance(effect, Sleep):
            return await anyio.sleep(effect.seconds)
        if isinstance(effect, Work):
            return await anyio.to_thread.run_sync(effect.function)
        return await self._gather(effect)

    async def _send(self, request: Request) -> Reply:
        async with AsyncExitStack() as files:
            try:
                sent = wire.arguments(request, files, wire.async_pieces)
                if request.into is None:
                    response = await self.http.request(**sent)
                else:
                    response = await files.enter_async_context(self.http.stream(**sent))
                    if response.is_success:
                        async with await anyio.open_file(request.into, "wb") as target:
                            async for piece in response.aiter_bytes(wire.PIECE):
                                await target.write(piece)
                        return wire.reply(response, b"")
                    await response.aread()
            except httpx.TransportError as error:
                raise NotReachable(wire.explained(error, self.http.base_url)) from error
        return wire.reply(response)

    async def _gather(self, gather: Gather) -> list[Any]:
        results: dict[int, Any] = {}
        errors: list[Exception] = []
        source = enumerate(gather.flows)

        async def work() -> None:
            try:
                for index, flow in source:
                    results[index] = await self.run(flow)
            except Exception as error:
                errors.append(error)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for _ in range(gather.limit):
                group.start_soon(work)
        if errors:
            raise errors[0]
        return [results[index] for index in range(len(results))]
