"""The two drivers of flows: order, limits, the first error, and what stops with it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from vigia_ml.client.blocking import BlockingDriver
from vigia_ml.client.flow import Flow, Gather, Sleep, Work
from vigia_ml.client.waiting import WaitingDriver

Run = Callable[[Flow[Any]], Any]


def blocking(flow: Flow[Any]) -> Any:
    with httpx.Client() as http:
        return BlockingDriver(http).run(flow)


def waiting(flow: Flow[Any]) -> Any:
    async def run() -> Any:
        async with httpx.AsyncClient() as http:
            return await WaitingDriver(http).run(flow)

    return asyncio.run(run())


@pytest.fixture(params=[blocking, waiting])
def run(request: pytest.FixtureRequest) -> Run:
    driver: Run = request.param
    return driver


def gathered(flows: Iterator[Flow[Any]], limit: int) -> Flow[Any]:
    return (yield Gather(flows, limit))


def test_results_are_in_the_order_of_the_flows(run: Run) -> None:
    def flow(number: int) -> Flow[int]:
        yield Sleep(0.02 * (5 - number))
        return number

    assert run(gathered((flow(number) for number in range(5)), 5)) == [0, 1, 2, 3, 4]
    assert run(gathered(iter(()), 3)) == []


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_flows_than_the_limit_run_and_each_is_made_when_its_turn_comes(run: Run, limit: int) -> None:
    lock, running, made, most = threading.Lock(), 0, 0, 0

    def count(change: int) -> None:
        nonlocal running, most
        with lock:
            running += change
            most = max(most, running)

    def flow() -> Flow[None]:
        yield Work(lambda: count(1))
        yield Sleep(0.01)
        yield Work(lambda: count(-1))

    def flows() -> Iterator[Flow[None]]:
        nonlocal made
        for _ in range(12):
            made += 1
            assert running <= limit
            yield flow()

    run(gathered(flows(), limit))
    assert (most, made) == (limit, 12)


def test_the_first_error_ends_the_others_and_is_raised(run: Run) -> None:
    begun: list[int] = []

    def flow(number: int) -> Flow[None]:
        begun.append(number)
        if number == 1:
            yield Sleep(0.05)
            raise ValueError("flow 1")
        yield Sleep(30)

    started = time.monotonic()
    with pytest.raises(ValueError, match="flow 1"):
        run(gathered((flow(number) for number in range(10)), 3))
    assert time.monotonic() - started < 5, "sleeping flows were woken"
    assert sorted(begun) == [0, 1, 2]


def test_an_error_of_an_effect_is_raised_inside_the_flow(run: Run) -> None:
    closed: list[str] = []

    def broken() -> None:
        raise OSError("disk")

    def flow() -> Flow[str]:
        try:
            yield Work(broken)
        except OSError as error:
            return str(error)
        finally:
            closed.append("closed")
        return "no error"

    assert run(flow()) == "disk"
    assert closed == ["closed"]
