"""Runs flows with a blocking HTTP client and threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

import httpx

from vigia_ml.client import wire
from vigia_ml.client.errors import NotReachable
from vigia_ml.client.flow import Effect, Flow, Gather, Reply, Request, Send, Sleep, Work

T = TypeVar("T")


class _Ended(Exception):
    """Another flow of the same `Gather` failed."""


class BlockingDriver:
    """Safe for use by several threads at once."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def run(self, flow: Flow[T], ended: threading.Event | None = None) -> T:
        """Returns the flow's result.

        Parameters
        ----------
        ended : set when the flow's result is no longer wanted.
        """
        try:
            effect = next(flow)
            while True:
                try:
                    result = self._perform(effect, ended)
                except Exception as error:
                    effect = flow.throw(error)
                else:
                    effect = flow.send(result)
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            flow.close()

    def _perform(self, effect: Effect, ended: threading.Event | None) -> Any:
        if ended is not None and ended.is_set():
            raise _Ended
        if isinstance(effect, Send):
            return self._send(effect.request)
        if isinstance(effect, Sleep):
            if ended is None:
                time.sleep(effect.seconds)
            elif ended.wait(effect.seconds):
                raise _Ended
            return None
        if isinstance(effect, Work):
            return effect.function()
        return self._gather(effect)

    def _send(self, request: Request) -> Reply:
        with ExitStack() as files:
            try:
                sent = wire.arguments(request, files, wire.pieces)
                if request.into is None:
                    response = self.http.request(**sent)
                else:
                    response = files.enter_context(self.http.stream(**sent))
                    if response.is_success:
                        with request.into.open("wb") as target:
                            target.writelines(response.iter_bytes(wire.PIECE))
                        return wire.reply(response, b"")
                    response.read()
            except httpx.TransportError as error:
                raise NotReachable(wire.explained(error, self.http.base_url)) from error
        return wire.reply(response)

    def _gather(self, gather: Gather) -> list[Any]:
        results: dict[int, Any] = {}
        errors: list[BaseException] = []
        source, lock, ended = enumerate(gather.flows), threading.Lock(), threading.Event()

        def work() -> None:
            try:
                for index, flow in _shared(source, lock):
                    if ended.is_set():
                        return
                    results[index] = self.run(flow, ended)
            except _Ended:
                pass
            except BaseException as error:
                errors.append(error)
                ended.set()

        if gather.limit == 1:
            work()
        else:
            with ThreadPoolExecutor(gather.limit, thread_name_prefix="vigia-client") as pool:
                try:
                    for future in [pool.submit(work) for _ in range(gather.limit)]:
                        future.result()
                except BaseException:  # Ctrl-C: the threads end after their present request
                    ended.set()
                    raise
        if errors:
            raise errors[0]
        return [results[index] for index in range(len(results))]


def _shared(source: Iterator[tuple[int, Flow[Any]]], lock: threading.Lock) -> Iterator[tuple[int, Flow[Any]]]:
    """Yields items of an iterator that several threads take from."""
    while True:
        with lock:
            item = next(source, None)
        if item is None:
            return
        yield item
