"""Fixtures with a catalogue for one test."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import default_storage
from threadpoolctl import threadpool_limits

from tests.pushed import Package
from training import catalogue
from training.models import RegisteredModel
from training.registry import lookup

Declare = Callable[[str, str], RegisteredModel]


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """A package of a client; no push is staged in the store."""
    shutil.rmtree(default_storage.path("pushes"), ignore_errors=True)
    return Package(tmp_path)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[Path]:
    """The directory of an empty catalogue; the service reads its files like those of training/catalogue/."""
    home = tmp_path / "catalogue"
    home.mkdir()
    known, own = set(sys.modules), set(vars(catalogue))
    monkeypatch.setattr(catalogue, "HERE", home)
    monkeypatch.setattr(catalogue, "__path__", [str(home)])
    settings.VAR_DIR = tmp_path / "var"
    forget_catalogue()
    with threadpool_limits(1):
        yield home
    for name in set(sys.modules) - known:
        if name.startswith("training.catalogue."):
            del sys.modules[name]
    for name in set(vars(catalogue)) - own:
        delattr(catalogue, name)
    forget_catalogue()


def forget_catalogue() -> None:
    catalogue.names.cache_clear()
    catalogue.get.cache_clear()


@pytest.fixture
def declare(shelf: Path, db: None) -> Declare:
    """Writes a model's file and returns the model's row."""

    def write(name: str, text: str) -> RegisteredModel:
        (shelf / f"{name}.py").write_text(text, encoding="utf-8")
        sys.modules.pop(f"training.catalogue.{name}", None)
        forget_catalogue()
        lookup.sync_catalogue()
        return RegisteredModel.objects.get(name=name)

    return write
