"""A real Chromium, and a page on which a superuser is logged in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--process-per-site",
    "--renderer-process-limit=1",
]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Playwright's loop runs in this thread, so Django takes the thread for asynchronous code.
        before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()
        connections.close_all()  # the loop's connections, which are unreachable after it
        if before is None:
            del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


def _is_unexpected(message: Any) -> bool:
    """Returns whether a console message is an error other than a refusal of the API, which the page
    displays."""
    refused = "/api/v1/" in message.location["url"] and re.search(r"status of 4\d\d", message.text)
    return message.type == "error" and not refused


@pytest.fixture(scope="session")
def window(chromium: Any, live_server: Any) -> Any:
    """Returns one page for all tests: a new window costs more than most tests, and the shared window keeps
    its cache of compiled static files."""
    opened = chromium.new_context(base_url=live_server.url).new_page()
    opened.set_default_timeout(10_000)
    return opened


@pytest.fixture
def page(window: Any, live_server: Any) -> Iterator[Any]:
    """Yields a page with a logged-in superuser; an error of a script or a request to another host fails the
    test."""
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    window.set_viewport_size({"width": 1400, "height": 900})
    window.context.add_cookies(
        [{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}]
    )
    problems: list[str] = []
    listeners = {
        "pageerror": lambda error: problems.append(str(error)),
        "console": lambda message: problems.append(message.text) if _is_unexpected(message) else None,
        "request": lambda request: (
            None
            if request.url.startswith((live_server.url, "data:", "blob:"))
            else problems.append(request.url)
        ),
    }
    for event, listener in listeners.items():
        window.on(event, listener)
    yield window
    for event, listener in listeners.items():
        window.remove_listener(event, listener)
    reset(window)
    assert problems == []


def reset(window: Any) -> None:
    """Clears the state of the last test, except the cache."""
    window.evaluate("try { localStorage.clear(); sessionStorage.clear() } catch { /* no page of ours */ }")
    window.goto("about:blank")
    window.context.clear_cookies()
    window.emulate_media(color_scheme="null")
