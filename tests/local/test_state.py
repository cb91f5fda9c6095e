"""What the local stack remembers between two starts, as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local.state import ARTIFACT_KEY, State, settle_artifact_key


def start(var: Path) -> tuple[State, str]:
    """What a start does about its state; and what it says."""
    state = State.load(var / "stack.json")
    told = settle_artifact_key(var, state)
    state.save(var / "stack.json")
    return state, told


def key(var: Path) -> str:
    return (var / ARTIFACT_KEY).read_text(encoding="utf-8").strip()


@pytest.fixture(autouse=True)
def _no_secret_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET_KEY", raising=False)
    monkeypatch.delenv("SECRET_KEY_FILE", raising=False)


def test_the_key_of_artifacts_is_a_secret_of_its_own(tmp_path: Path) -> None:
    state, told = start(tmp_path)
    assert told == ""
    assert len(key(tmp_path)) > 40
    assert key(tmp_path) != state.secret_key
    assert key(tmp_path) not in (tmp_path / "stack.json").read_text(encoding="utf-8")
    assert (tmp_path / ARTIFACT_KEY).stat().st_mode & 0o777 == 0o600


def test_losing_stack_json_leaves_the_key_of_artifacts(tmp_path: Path) -> None:
    start(tmp_path)
    before = key(tmp_path)
    (tmp_path / "stack.json").unlink()
    state, told = start(tmp_path)
    assert (key(tmp_path), told) == (before, "")
    assert start(tmp_path)[0].secret_key == state.secret_key


def older(var: Path) -> str:
    """A stack from before the file; its secret key, which signed artifacts as well."""
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


def test_a_key_that_is_gone_is_made_anew_and_said(tmp_path: Path) -> None:
    start(tmp_path)
    before = key(tmp_path)
    (tmp_path / ARTIFACT_KEY).unlink()
    _, told = start(tmp_path)
    assert "is gone and was made anew" in told
    assert key(tmp_path) != before
    assert start(tmp_path)[1] == "", "said once; afterwards each start names what it cannot verify"
