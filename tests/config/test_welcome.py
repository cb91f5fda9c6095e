"""The text that a start prints."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from config import welcome

FIRST: Any = SimpleNamespace(
    registered_model=SimpleNamespace(name="churn"), dataset_schema=SimpleNamespace(example={"name": "it's"})
)


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"VIGIA_PUBLISH": "127.0.0.1:8001"}, "http://127.0.0.1:8001"),
        ({"VIGIA_PUBLISH": "8001"}, "http://127.0.0.1:8001"),
        ({"VIGIA_PUBLISH": "0.0.0.0:80"}, "http://127.0.0.1"),
        ({"VIGIA_PUBLISH": "10.0.0.7:8000"}, "http://10.0.0.7:8000"),
        ({"VIGIA_PUBLISH": "[::1]:8000"}, "http://[::1]:8000"),
        ({"VIGIA_DOMAIN": "vigia.example.com", "VIGIA_PUBLISH": "80"}, "https://vigia.example.com"),
        ({"VIGIA_DOMAIN": "localhost", "VIGIA_PUBLISH_TLS": "127.0.0.1:8443"}, "https://localhost:8443"),
    ],
)
def test_the_address_is_the_published_one(environment: dict[str, str], address: str) -> None:
    assert welcome.address(environment) == address


def test_the_text_of_containers_names_the_places_of_the_secrets(tmp_path: Path) -> None:
    (tmp_path / "admin-password").write_text("the password")
    (tmp_path / "client-key").write_text("the key")
    text = welcome.compose(tmp_path, {}, FIRST, {})
    assert "the password" not in text
    assert "the key" not in text
    assert f"password: docker compose exec web cat {tmp_path}/admin-password" in text
    [command] = [line for line in text.splitlines() if line.startswith("curl")]
    words = shlex.split(command)
    assert words[2] == "http://127.0.0.1:8000/api/v1/models/churn/predictions/"
    assert f"Authorization: Token $(docker compose exec -T web cat {tmp_path}/client-key)" in words
    assert words[-1] == '{"name": "it\'s"}'
    assert "Ctrl-C" not in text


def test_the_text_of_containers_knows_removed_files_and_unknown_authorities(tmp_path: Path) -> None:
    text = welcome.compose(tmp_path, {}, FIRST, {})
    assert "the password that you set" in text
    assert "curl" not in text
    (tmp_path / "client-key").write_text("the key")
    text = welcome.compose(
        tmp_path, {}, FIRST, {"VIGIA_DOMAIN": "a.test", "VIGIA_CERTIFICATES": "local_certs"}
    )
    assert "curl -sk https://a.test/api/" in text


def test_the_local_text_holds_password_and_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "8001")
    text = welcome.local(tmp_path, "the password", "the key", {7: "churn 1 is damaged"}, FIRST)
    assert "Vigía is up, DEGRADED: http://127.0.0.1:8001/" in text
    assert "CANNOT ANSWER  churn 1 is damaged" in text
    assert "password the password" in text
    command = text[text.index("curl") : text.index("Ctrl-C")]
    words = [word for word in shlex.split(command) if word.strip()]
    assert "Authorization: Token the key" in words
    assert words[-1] == '{"name": "it\'s"}'
