"""Requests as generators that do no input or output: `Client` and `AsyncClient` run the same ones.

A *flow* yields effects and receives their results; its return value is the result of the method. The drivers
in `blocking.py` and `waiting.py` perform the effects with threads or with tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart body that is read from its files while it is sent.

    fields : name -> text. files : name -> (path, content type). boundary : the same at each retry.
    """

    fields: Mapping[str, str]
    files: Mapping[str, tuple[Path, str]]
    boundary: str


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, which can be sent again unchanged.

    path : below the address of the service, such as ``/api/v1/models/``.
    body : bytes, a file that is streamed, or a multipart upload. timeout : seconds; None: the client's.
    into : file that receives the body of a 2xx answer; its `Reply` then has an empty body.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Path | Upload | None = None
    timeout: float | None = None
    into: Path | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer whose body was read whole. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Send:
    """Effect: sends a request. Result: its `Reply`, or `NotReachable` is raised."""

    request: Request


@dataclass(frozen=True, slots=True)
class Sleep:
    """Effect: waits."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """Effect: calls a function that computes or reads files. Result: its return value."""

    function: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Gather:
    """Effect: runs flows, at most `limit` at a time, and takes the next one only when one has ended.

    Result: their results in order. The first error ends the others and is raised.
    """

    flows: Iterable[Generator[Any, Any, Any]]
    limit: int


Effect = Send | Sleep | Work | Gather
Flow = Generator[Effect, Any, T]
