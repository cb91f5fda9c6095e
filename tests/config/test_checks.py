"""`manage.py check` finds mistakes of a deployment."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.db import connection

from config import checks

LONG = "0123456789abcdef" * 4


def message_ids(*, deploy: bool = False, databases: list[str] | None = None) -> set[str | None]:
    """Returns the ids of Vigía's messages."""
    messages = run_checks(include_deployment_checks=deploy, databases=databases)
    return {message.id for message in messages if (message.id or "").startswith("vigia.")}


@pytest.fixture
def deployed(settings: Any) -> Any:
    """Valid settings of a server."""
    settings.LOCAL = False
    settings.HTTPS = True
    settings.SECRET_KEY = LONG
    settings.ARTIFACT_KEY = LONG[::-1]
    settings.ALLOWED_HOSTS = ["vigia.example.com"]
    settings.RATE_LIMIT = "1000/min"
    return settings


@pytest.mark.django_db
def test_a_valid_deployment_has_no_message(deployed: Any) -> None:
    assert message_ids(deploy=True, databases=["default"]) == set()


@pytest.mark.parametrize("name", ["SECRET_KEY", "ARTIFACT_KEY", "METRICS_TOKEN"])
def test_a_short_secret_is_an_error_only_with_deploy(deployed: Any, name: str) -> None:
    setattr(deployed, name, "short")
    assert message_ids() == set()
    assert message_ids(deploy=True) == {"vigia.E001"}


def test_an_artifact_key_equal_to_the_secret_key_is_a_warning_off_the_local_stack(deployed: Any) -> None:
    deployed.ARTIFACT_KEY = deployed.SECRET_KEY
    assert message_ids(deploy=True) == {"vigia.W002"}
    deployed.LOCAL = True
    assert message_ids(deploy=True) == set()


def test_a_location_without_its_folder_is_a_warning(deployed: Any, tmp_path: Path) -> None:
    deployed.BATCH_LOCATIONS = {"nightly": str(tmp_path)}
    assert message_ids() == set()
    deployed.BATCH_LOCATIONS["archive"] = str(tmp_path / "none")
    assert message_ids() == {"vigia.W023"}


def test_serving_every_host_is_a_warning(deployed: Any) -> None:
    deployed.ALLOWED_HOSTS = ["*"]
    assert message_ids(deploy=True) == {"vigia.W003"}


def test_plain_http_is_one_warning(deployed: Any) -> None:
    deployed.HTTPS = False
    assert message_ids(deploy=True) == {"vigia.W022"}


def store_at(settings: Any, path: Path) -> None:
    changed = {**settings.STORAGES["default"], "OPTIONS": {"location": str(path)}}
    settings.STORAGES = {**settings.STORAGES, "default": changed}
    assert storages["default"].location == str(path)  # type: ignore[attr-defined]


def test_a_store_may_be_missing_if_its_parent_is_writable(settings: Any, tmp_path: Path) -> None:
    store_at(settings, tmp_path / "not" / "yet")
    assert message_ids() == set()


def test_a_store_that_cannot_be_written_is_an_error(settings: Any, tmp_path: Path) -> None:
    # A file in the path also stops root, whom permissions do not stop.
    (tmp_path / "file").touch()
    store_at(settings, tmp_path / "file" / "store")
    assert message_ids() == {"vigia.E004"}


@pytest.mark.parametrize("wrong", ["1000", "many/min", "10/fortnight", "0/min", "/"])
def test_an_invalid_rate_is_an_error(settings: Any, wrong: str) -> None:
    settings.RATE_LIMIT = wrong
    assert message_ids() == {"vigia.E008"}


@pytest.mark.parametrize("right", ["", "100/s", "1000/min", "10000/hour", "100000/day"])
def test_a_valid_rate_is_no_error(settings: Any, right: str) -> None:
    settings.RATE_LIMIT = right
    assert message_ids() == set()


@pytest.mark.parametrize("name", checks.LIMITS)
def test_a_limit_of_zero_is_an_error(settings: Any, name: str) -> None:
    setattr(settings, name, 0)
    assert message_ids() == {"vigia.E009"}


@pytest.mark.django_db
def test_asynchronous_commits_are_an_error_with_a_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")
    assert message_ids() == set()
    assert message_ids(databases=["default"]) == {"vigia.E006"}
    with pytest.raises(CommandError, match="synchronous_commit=off"):
        call_command("check", databases=["default"], stderr=StringIO())


@pytest.mark.parametrize("name", checks.DURABILITY)
def test_each_setting_that_can_lose_a_commit_is_named(name: str) -> None:
    sound = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
    assert checks.durability_errors(sound) == []
    (message,) = checks.durability_errors({**sound, name: "off"})
    assert name in message.msg
    assert message.hint


def test_committing_to_the_local_disk_alone_is_durable() -> None:
    assert checks.durability_errors({"synchronous_commit": "local"}) == []


def test_every_message_has_a_unique_id() -> None:
    source = Path(checks.__file__).read_text(encoding="utf-8")
    ids = [part.partition('"')[0] for part in source.split('id="')[1:]]
    assert len(ids) == len(set(ids)) == 16
    assert all(part.startswith(("vigia.E0", "vigia.W0")) for part in ids)
