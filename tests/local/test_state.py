"""The local stack's state files between two starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local.state import ARTIFACT_KEY, State, settle_artifact_key


def start(var: Path) -> tuple[State, str]:
    """Handles the state as a start does; returns it and the start's message."""
    state = State.load(var / "stack.json")
    message = settle_artifact_key(var, state)
    state.save(var / "stack.json")
    return state, message


def key(var: Path) -> str:
    return (var / ARTIFACT_KEY).read_text(encoding="utf-8").strip()


@pytest.fixture(autouse=True)
def _no_secret_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET_KEY", raising=False)
    monkeypatch.delenv("SECRET_KEY_FILE", raising=False)


def test_the_key_of_artifacts_is_a_separate_secret(tmp_path: Path) -> None:
    state, message = start(tmp_path)
    assert message == ""
    assert len(key(tmp_path)) > 40
    assert key(tmp_path) != state.secret_key
    assert key(tmp_path) not in (tmp_path / "stack.json").read_text(encoding="utf-8")
    assert (tmp_path / ARTIFACT_KEY).stat().st_mode & 0o777 == 0o600


def test_losing_stack_json_keeps_the_key_of_artifacts(tmp_path: Path) -> None:
    start(tmp_path)
    before = key(tmp_path)
    (tmp_path / "stack.json").unlink()
    state, message = start(tmp_path)
    assert (key(tmp_path), message) == (before, "")
    assert start(tmp_path)[0].secret_key == state.secret_key


def older(var: Path) -> str:
    """Creates the state of an older stack without the key's file; returns its secret key, which signed
    artifacts."""
    state = State.load(var / "stack.json")
    state.save(var / "stack.json")
    assert "key_apart" not in json.loads((var / "stack.json").read_text(encoding="utf-8"))
    return state.secret_key


def test_an_older_stacks_key_is_carried_over_once(tmp_path: Path) -> None:
    signed_with = older(tmp_path)
    assert start(tmp_path)[1] == ""
    assert key(tmp_path) == signed_with
    (tmp_path / "stack.json").unlink()
    assert start(tmp_path)[0].secret_key != signed_with
    assert key(tmp_path) == signed_with


def test_an_older_stacks_key_from_the_environment_is_carried_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older(tmp_path)
    (tmp_path / "secret").write_text("from a file\n", encoding="utf-8")
    monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path / "secret"))
    start(tmp_path)
    assert key(tmp_path) == "from a file"


def test_a_lost_key_is_replaced_and_reported(tmp_path: Path) -> None:
    start(tmp_path)
    before = key(tmp_path)
    (tmp_path / ARTIFACT_KEY).unlink()
    _, message = start(tmp_path)
    assert "was missing and is new now" in message
    assert key(tmp_path) != before
    assert start(tmp_path)[1] == "", "the message appears once"
