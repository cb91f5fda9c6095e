"""A real Chromium, and a page of it that a superuser has logged in on."""

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
        # Playwright's loop runs in this thread, which Django takes for asynchronous code.
        before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()
        connections.close_all()  # those of the loop, which nobody finds after it
        if before is None:
            del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


def _is_wrong(message: Any) -> bool:
    """The browser logs every refusal of the API as an error; the page is to make words of it."""
    refused = "/api/v1/" in message.location["url"] and re.search(r"status of 4\d\d", message.text)
    return message.type == "error" and not refused


@pytest.fixture(scope="session")
def window(chromium: Any, live_server: Any) -> Any:
    """One page for all tests: a window of its own costs more than what most tests do in it, and what is
    cached of static files is not read and compiled again."""
    opened = chromium.new_context(base_url=live_server.url).new_page()
    opened.set_default_timeout(10_000)
    return opened


@pytest.fixture
def page(window: Any, live_server: Any) -> Iterator[Any]:
    """A page of a superuser who has logged in; a script's error or a request elsewhere fails the test."""
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    window.set_viewport_size({"width": 1400, "height": 900})
    window.context.add_cookies(
        [{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}]
    )
    wrong: list[str] = []
    heard = {
        "pageerror": lambda error: wrong.append(str(error)),
        "console": lambda message: wrong.append(message.text) if _is_wrong(message) else None,
        "request": lambda request: (
            None if request.url.startswith((live_server.url, "data:", "blob:")) else wrong.append(request.url)
        ),
    }
    for event, listener in heard.items():
        window.on(event, listener)
    yield window
    for event, listener in heard.items():
        window.remove_listener(event, listener)
    forget(window)
    assert wrong == []


def forget(window: Any) -> None:
    """What the last test left, but for the cache."""
    window.evaluate("try { localStorage.clear(); sessionStorage.clear() } catch { /* no page of ours */ }")
    window.goto("about:blank")
    window.context.clear_cookies()
    window.emulate_media(color_scheme="null")
