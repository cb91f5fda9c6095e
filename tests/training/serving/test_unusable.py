"""An unusable artifact gives 503 with a message and harms no other version."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as plain_settings
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.test import Client

from config import checks
from config.management.commands.bootstrap import static_sources
from core.errors import ArtifactError
from tests.conftest import Post, assert_error
from tests.trained import train_sample
from training import artifacts
from training.models import ModelVersion
from training.serving import engine_cache
from web import health

pytestmark = pytest.mark.django_db(transaction=True)
CHURN = "/api/v1/models/churn/predictions/"
NOBODY = 65534


def place(digest: str) -> Path:
    return Path(default_storage.path(f"artifacts/{digest[:2]}/{digest}"))


@contextmanager
def instead(path: Path, make: Callable[[Path], None]) -> Iterator[None]:
    """Replaces a stored artifact by something else."""
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    try:
        make(path)
        yield
    finally:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        aside.rename(path)


@contextmanager
def somebody_else() -> Iterator[None]:
    """Makes a file unreadable and drops root's rights, because root reads every file."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def unreadable(path: Path) -> None:
    path.write_bytes(b"x")
    path.chmod(0)


PLACES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a directory": (lambda path: path.mkdir(), "cannot be read from the store"),
    "a symlink loop": (lambda path: path.symlink_to(path), "cannot be read from the store"),
    "a link to nothing": (lambda path: path.symlink_to(path.with_name("none")), "is not in the store"),
    "a pipe": (os.mkfifo, "cannot be read from the store"),
    "a device that never ends": (lambda path: path.symlink_to("/dev/zero"), "cannot be read from the store"),
    "a file of somebody else": (unreadable, "cannot be read from the store"),
    "an empty file": (lambda path: path.touch(), "was changed"),
}
ROWS: dict[str, tuple[dict[str, str], str]] = {
    "an empty digest": (
        {"artifact_sha256": "", "compiled_sha256": "", "engine": "sklearn"},
        "holds no valid digest",
    ),
    "a digest that is a path": ({"compiled_sha256": "../../etc/passwd"}, "holds no valid digest"),
    "a signature that is not ASCII": ({"compiled_hmac": "ñ" * 64}, "was not signed"),
    "an empty signature": ({"compiled_hmac": ""}, "was not signed"),
}


@pytest.mark.parametrize("name", PLACES)
def test_bytes_that_cannot_be_read_are_a_503(
    name: str, churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    make, message = PLACES[name]
    with instead(place(churn.compiled_sha256), make), somebody_else():
        error = assert_error(post(CHURN, customer), 503, "artifact_unusable")
        assert message in error["message"]
        assert str(default_storage.path("")) not in error["message"], "paths are no client's business"
        assert (
            message in engine_cache.unusable()[churn.pk]
            or "cannot be found" in engine_cache.unusable()[churn.pk]
        )
    assert post(CHURN, customer).status_code == 200


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_names_no_artifact_is_a_503(
    name: str, churn: ModelVersion, post: Post, customer: dict[str, Any]
) -> None:
    fields, message = ROWS[name]
    version = train_sample("churn", rows=600, activate=False, **fields)
    error = assert_error(post(CHURN.replace("pre", "versions/2/pre"), customer), 503, "artifact_unusable")
    assert message in error["message"]
    ModelVersion.objects.filter(pk=churn.pk).update(status="retired")
    ModelVersion.objects.filter(pk=version.pk).update(status="active")
    assert (
        message in engine_cache.unusable()[version.pk]
        or "cannot be found" in engine_cache.unusable()[version.pk]
    )


def test_a_dataset_that_cannot_be_read_is_an_artifact_error(churn: ModelVersion) -> None:
    path = Path(default_storage.path(churn.dataset.storage_name))
    for make, message in PLACES.values():
        wrong = pytest.raises(ArtifactError, match=message)
        with instead(path, make), somebody_else(), wrong, artifacts.dataset_file(churn.dataset):
            pass


def test_the_other_versions_are_warmed_up_when_one_cannot_be_loaded(churn: ModelVersion) -> None:
    houses = train_sample("houses", rows=180)
    assert churn.pk < houses.pk, "the bad one is tried first"
    for make, _ in PLACES.values():
        engine_cache.forget()
        with instead(place(churn.compiled_sha256), make):
            if make is not unreadable:  # the thread of the warm-up keeps root's rights
                engine_cache.warm_up()
                assert engine_cache.peek(churn.pk) is None
                assert engine_cache.peek(houses.pk) is not None


def test_the_page_of_an_unusable_version_is_shown(churn: ModelVersion) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    with instead(place(churn.compiled_sha256), lambda path: path.mkdir()):
        for page in (f"modelversion/{churn.pk}", f"registeredmodel/{churn.registered_model_id}"):
            assert client.get(f"/admin/training/{page}/change/").status_code == 200, page


# -- another key ---------------------------------------------------------------------------------------


@pytest.fixture
def var(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A var directory with collected static files."""
    settings.VAR_DIR = tmp_path
    static = tmp_path / "static"
    static.mkdir()
    (static / ".collected").write_text(static_sources(), encoding="utf-8")
    # Without the fixture, which would create the default storage at another place than the tests' own.
    monkeypatch.setattr(plain_settings, "STATIC_ROOT", str(static))
    return tmp_path


def bootstrapped() -> str:
    """Returns the messages of the checks at the start."""
    err = StringIO()
    call_command("bootstrap", "--no-models", stdout=StringIO(), stderr=err)
    return err.getvalue()


def test_a_start_with_another_key_reports_it_and_is_not_ready(
    churn: ModelVersion, settings: Any, var: Path
) -> None:
    settings.ARTIFACT_KEY = "another"
    messages = bootstrapped()
    assert "CANNOT ANSWER: the compiled engine of churn 1 was not signed" in messages
    assert "Restore the old key" in messages
    welcome = (var / "welcome.txt").read_text(encoding="utf-8")
    assert "Vigía is up, DEGRADED: " in welcome
    assert "A first prediction" not in welcome
    health.forget()
    probed = Client().get("/healthz/ready")
    assert probed.status_code == 503
    assert probed.json()["active_models"] == 0
    assert "models" in {entry["check"] for entry in probed.json()["degraded"]}
    health.forget()


def test_a_start_with_usable_versions_reports_nothing(churn: ModelVersion, var: Path) -> None:
    assert bootstrapped() == ""
    assert "DEGRADED" not in (var / "welcome.txt").read_text(encoding="utf-8")


# -- older versions ------------------------------------------------------------------------------------


def test_an_active_version_without_an_edge_comparison_is_reported(churn: ModelVersion) -> None:
    assert not list(checks.compiled_versions_were_compared_at_thresholds(None, ["default"]))
    older = {name: value for name, value in churn.parity.items() if name != "protocol"}
    old = train_sample("churn", rows=600, parity=older)
    [message] = checks.compiled_versions_were_compared_at_thresholds(None, ["default"])
    assert message.id == "vigia.W020"
    assert message.msg.startswith("churn 2 was compiled before")
    assert engine_cache.ready(old.pk).number == 2, "it still answers"
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    page = client.get(f"/admin/training/modelversion/{old.pk}/change/").content.decode()
    assert "Edge comparison" in page
    assert (
        "Edge comparison"
        not in client.get(f"/admin/training/modelversion/{churn.pk}/change/").content.decode()
    )
