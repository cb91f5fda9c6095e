"""Every page sends a Content-Security-Policy, and a browser finds no violation of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from predictions.models import DriftReview
from tests.browser.conftest import CHROMIUM
from tests.predictions.admin.test_log import answered
from tests.recommender.conftest import add_movies, build_index
from tests.trained import train_sample
from training.models import ModelVersion
from training.registry import activation
from web.content_policy import STRICT

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed (apt install chromium)"),
    pytest.mark.django_db(transaction=True),
]

LISTENER = """
window.broken = [];
document.addEventListener('securitypolicyviolation',
    e => window.broken.push(`${e.effectiveDirective} ${e.blockedURI} ${e.sourceFile}:${e.lineNumber}`));
"""
UNSAFE = ("'unsafe-inline'", "'unsafe-eval'", "*", "http:", "https:", "data:")


def policy_of(headers: Any) -> dict[str, list[str]]:
    """Returns directive -> sources, after a check of the page's other security headers."""
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["X-Frame-Options"] == "DENY"
    assert "geolocation=()" in headers["Permissions-Policy"]
    assert "Content-Security-Policy-Report-Only" not in headers
    parts = [part.split() for part in headers["Content-Security-Policy"].split(";")]
    policy = {name: sources for name, *sources in parts}
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == ["'none'"]
    return policy


def test_no_page_violates_its_policy(page: Any, live_server: Any) -> None:
    version = train_sample("churn", rows=300)
    train_sample("churn", rows=400, activate=False)
    answered(version, 5, prediction=True, probability=0.7)
    add_movies()
    activation.activate(build_index(), by=None, reason="a test needs it", override=True)
    page.add_init_script(LISTENER)
    page.set_viewport_size({"width": 1500, "height": 900})
    row = reverse("admin:training_modelversion_change", args=[version.pk])
    paths = [
        "/", "/movies/?movie=1", "/api/docs/", "/api/v1/models/", "/api/v1/models/churn/predictions/",
        "/api/v1/recommendations/", "/admin/", "/admin/watch/",
        f"/admin/watch/{version.registered_model_id}/",
        row, f"{row[: -len('change/')]}activate/", reverse("admin:predictions_prediction_changelist"),
        reverse("admin:training_trainingrun_changelist"), reverse("admin:auth_user_add"),
        reverse("admin:recommender_movie_change", args=[1]),
    ]  # fmt: skip
    broken: dict[str, list[str]] = {}
    for path in paths:
        answer = page.goto(path, wait_until="load", timeout=60_000)
        assert answer.status == 200, path
        if path == "/api/docs/":
            page.locator(".opblock").first.wait_for(timeout=60_000)
        page.wait_for_timeout(150)
        policy_of({name.title(): value for name, value in answer.all_headers().items()})
        if violations := page.evaluate("window.broken"):
            broken[path] = violations
    assert broken == {}


def test_the_login_page_keeps_the_strict_policy_and_logs_in(
    page: Any, live_server: Any, settings: Any, tmp_path: Path
) -> None:
    """The fixture fails the test at every error in the console."""
    settings.VAR_DIR, settings.LOCAL = tmp_path, True
    (tmp_path / "admin-password").write_text("a long watch by night", encoding="utf-8")
    User.objects.create_superuser("warden", password="a long watch by night")
    page.context.clear_cookies()
    page.add_init_script(LISTENER)

    def log_in(password: str) -> None:
        page.get_by_label("Username").fill("warden")
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Log in").click()

    answer = page.goto("/admin/login/?next=/admin/")
    policy = policy_of({name.title(): value for name, value in answer.all_headers().items()})
    assert policy == STRICT
    assert page.title() == "Log in | Vigía"
    assert page.evaluate("document.activeElement.name") == "username"
    assert page.get_by_label("Password").get_attribute("aria-describedby") == "id_password_helptext"
    assert "wrote the password of admin" in page.locator("#id_password_helptext").inner_text()
    assert "unfold/css" not in page.content()
    log_in("a guess")
    assert "enter the correct username" in page.get_by_role("alert").inner_text()
    assert page.evaluate("window.broken") == []
    log_in("a long watch by night")
    page.wait_for_url("**/admin/")
    assert page.evaluate("window.broken") == []


def test_the_login_page_follows_the_theme_of_the_system_or_the_user(page: Any, live_server: Any) -> None:
    page.context.clear_cookies()

    def brightness() -> tuple[float, float]:
        """Returns the brightness of the background and of the text, from 0 to 1."""
        colours = page.evaluate(
            "['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name])"
            ".map(colour => { const one = document.createElement('canvas').getContext('2d');"
            " one.fillStyle = colour; one.fillRect(0, 0, 1, 1);"
            " return one.getImageData(0, 0, 1, 1).data[1] / 255; })"
        )
        return colours[0], colours[1]

    for system, chosen, dark in [
        ("light", None, False), ("dark", None, True), ("dark", "light", False), ("light", "dark", True),
        ("dark", "auto", True),
    ]:  # fmt: skip
        page.emulate_media(color_scheme=system)
        page.goto("/admin/login/")
        script = (
            "localStorage.clear()"
            if chosen is None
            else f"localStorage.setItem('adminTheme', '\"{chosen}\"')"
        )
        page.evaluate(script)
        page.reload()
        back, text = brightness()
        assert (back < 0.2, text > 0.8) == (dark, dark), (system, chosen, back, text)
        assert (back > 0.9, text < 0.5) == (not dark, not dark), (system, chosen, back, text)


def test_our_own_pages_allow_nothing_unsafe(db: None) -> None:
    for path in ("/", "/nope/"):
        policy = policy_of(Client().get(path, headers={"Accept": "text/html"}).headers)
        assert not [source for sources in policy.values() for source in sources if source in UNSAFE], policy
    refused = Client().post("/", headers={"Accept": "text/html"})
    assert refused.status_code == 405
    policy_of(refused.headers)


def test_the_browsable_api_runs_no_inline_script(churn: ModelVersion, api: APIClient) -> None:
    answer = api.get("/api/v1/models/", headers={"Accept": "text/html"})
    assert policy_of(answer.headers)["script-src"] == ["'self'"]
    assert "Content-Security-Policy" not in api.get("/api/v1/models/").headers, "JSON runs nothing"


def test_a_review_as_html_loads_no_other_file(churn: ModelVersion, api: APIClient) -> None:
    answered(churn, 3)
    window = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "format": "html"}
    answer = api.get("/api/v1/models/churn/drift/", window)
    assert answer.status_code == 200, answer.content
    assert DriftReview.objects.exists()
    policy = policy_of(answer.headers)
    assert policy["style-src"] == ["'unsafe-inline'"]
    assert "script-src" not in policy
