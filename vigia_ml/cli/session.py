"""Options and exit codes of every command: ``--url``, ``--key``, ``--json``, and no traceback."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any

import msgspec
import typer

from vigia_ml.client import Client, errors
from vigia_ml.client.settings import InsecureTransport, NotConfigured
from vigia_ml.errors import VigiaError
from vigia_ml.schema import InvalidRows

FEW_RETRIES = 3
"""Repetitions of an interactive request, some four seconds in all."""


class ExitCode(IntEnum):
    """Exit codes of `vigiactl`; docs/client.md lists them."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    FAILED = 3
    UNREACHABLE = 4
    NO_ACCESS = 5
    INVALID_ROWS = 6
    INTERRUPTED = 130


Url = Annotated[
    str | None, typer.Option("--url", help="Address of the service; default: VIGIA_URL or the login.")
]
Key = Annotated[
    str | None,
    typer.Option("--key", help="Client key; default: VIGIA_KEY or the login. Others may see it in `ps`."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@dataclass(frozen=True, slots=True)
class Session:
    """The service that a command talks to, and how it prints."""

    url: str | None
    key: str | None
    as_json: bool

    def client(self, *, retries: int = FEW_RETRIES) -> Client:
        return Client(self.url, self.key, retries=retries)

    @property
    def progress(self) -> bool:
        """Whether a progress bar is shown: only to a person."""
        return not self.as_json and sys.stderr.isatty()


def command(app: typer.Typer, name: str | None = None, **settings: Any) -> Callable[..., Any]:
    """Registers a function as a command. Its first parameter receives the `Session`, whose options are added
    to those of the function."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(function, include_extras=True)
        _, *own = inspect.signature(function).parameters.values()
        own = [parameter.replace(annotation=hints[parameter.name]) for parameter in own]
        shared = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for option, kind, default in (("url", Url, None), ("key", Key, None), ("as_json", AsJson, False))
        ]

        @functools.wraps(function)
        def run(*, url: str | None, key: str | None, as_json: bool, **arguments: Any) -> None:
            with exit_codes(as_json=as_json):
                function(Session(url, key, as_json), **arguments)

        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own] + shared
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        del run.__wrapped__
        app.command(name, **settings)(run)
        return function

    return register


@contextmanager
def exit_codes(*, as_json: bool = False) -> Iterator[None]:
    """Turns expected errors into a message on standard error and an exit code."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries; ours are printed as sentences
            warnings.filterwarnings("always", category=InsecureTransport)
            warnings.showwarning = _print_warning
            yield
    except VigiaError as error:
        _print_error(error, as_json=as_json)
        raise typer.Exit(code_of(error)) from None
    except InvalidRows as error:
        details = [fault.as_dict() for fault in error.faults]
        _print_error(VigiaError(error.message, code="invalid_input", details=details), as_json=as_json)
        raise typer.Exit(ExitCode.REFUSED) from None
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            sys.stderr.close()  # the reader of the output has ended, as `head` does
            raise typer.Exit(ExitCode.OK) from None
        place = f"{error.filename}: " if error.filename else ""
        _print_error(VigiaError(f"{place}{error.strerror or error}", code="unreadable_file"), as_json=as_json)
        raise typer.Exit(ExitCode.REFUSED) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def code_of(error: VigiaError) -> ExitCode:
    if isinstance(error, errors.GateNotPassed | errors.RunFailed):
        return ExitCode.FAILED
    if isinstance(error, errors.NotReachable | errors.Unavailable | errors.RateLimited):
        return ExitCode.UNREACHABLE
    if isinstance(error, errors.Unauthorized | errors.Forbidden | NotConfigured):
        return ExitCode.NO_ACCESS
    return ExitCode.REFUSED


def _print_error(error: VigiaError, *, as_json: bool) -> None:
    if as_json:
        fields: dict[str, Any] = {"code": error.code, "message": error.message, "details": error.details}
        if isinstance(error, errors.ApiError):
            fields |= {"status": error.status, "request_id": error.request_id}
        print(msgspec.json.encode({"error": fields}).decode(), file=sys.stderr)  # noqa: T201
        return
    text = str(error)
    if not isinstance(error, errors.ApiError) and error.details:
        shown = error.details[: errors.SHOWN_FAULTS]
        text = "\n".join([text, *(f"  {errors.described(fault)}" for fault in shown)])
    print(f"vigiactl: {text}", file=sys.stderr)  # noqa: T201


def _print_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"vigiactl: warning: {message}", file=sys.stderr)  # noqa: T201
