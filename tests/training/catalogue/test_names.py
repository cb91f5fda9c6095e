"""Names that no model can have: `startmodel` rejects them, `check` finds them, and they do no harm."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from django.core.checks import Error, run_checks
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.training.conftest import Declare, forget_catalogue
from tests.training.management.test_load_dataset import DECLARATION
from training import catalogue
from training.registry import lookup

TAKEN = (
    "get", "names", "importlib", "Path", "pkgutil", "keyword", "cache", "annotations", "reserved", "type",
    "isinstance", "sorted", "source_sha256", "unusable_names",
)  # fmt: skip


def errors() -> dict[str, str]:
    return {
        message.msg: message.hint or ""
        for message in run_checks()
        if isinstance(message, Error) and message.id in ("vigia.E010", "vigia.E011")
    }


@pytest.mark.parametrize(
    "name", [*TAKEN, "class", "lambda", "movies", "Get", "2x", "_x", "a-b", "é", "x" * 51]
)
def test_startmodel_rejects_a_reserved_or_invalid_name(shelf: Path, tmp_path: Path, name: str) -> None:
    csv = tmp_path / "rows.csv"
    csv.write_text("a,y\n1,2\n", encoding="utf-8")
    with pytest.raises(CommandError, match="choose another name, such as "):
        call_command("startmodel", name, str(csv), "--target", "y")
    assert not list(shelf.glob("*.py"))


@pytest.mark.parametrize("name", TAKEN)
def test_check_finds_a_file_with_a_reserved_name(shelf: Path, name: str) -> None:
    (shelf / f"{name}.py").write_text(DECLARATION.replace("fruit", name), encoding="utf-8")
    (shelf / "fruit.py").write_text(DECLARATION, encoding="utf-8")
    forget_catalogue()
    [(messages, hint)] = errors().items()
    assert messages.startswith(f"training/catalogue/{name}.py cannot declare a model: {name!r} is a")
    assert f"{name}_model" in hint
    assert catalogue.names() == ("fruit",), "and the others are served"
    assert catalogue.get("fruit").name == "fruit"
    assert callable(catalogue.get)


def test_check_finds_a_file_with_the_name_of_another_applications_model(shelf: Path) -> None:
    (shelf / "movies.py").write_text(DECLARATION.replace("fruit", "movies"), encoding="utf-8")
    forget_catalogue()
    assert list(errors()) == [
        "training/catalogue/movies.py cannot declare a model: 'movies' is the model of another application."
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("MODEL =", "SyntaxError"),
        ("import nowhere_at_all", "ModuleNotFoundError"),
        ("MODEL = 3", "must define"),
    ],
)
def test_check_finds_an_unreadable_file(shelf: Path, text: str, reason: str) -> None:
    (shelf / "fruit.py").write_text(text, encoding="utf-8")
    forget_catalogue()
    [messages] = errors()
    assert messages.startswith("training/catalogue/fruit.py ")
    assert reason in messages


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["json", "email", "calendar", "match", "test", "versions", "admin"])
def test_other_names_work(declare: Declare, name: str) -> None:
    """Modules of the standard library and words of URLs are not reserved."""
    declare(name, DECLARATION.replace("fruit", name))
    assert errors() == {}
    assert catalogue.get(name).name == name
    assert lookup.get_model(name).name == name


def test_every_name_of_the_catalogue_is_reserved() -> None:
    """The set includes later additions to the package without another line."""
    own = {name for name, value in vars(catalogue).items() if not _is_model(value)}
    assert own <= catalogue.OWN | {"__warningregistry__"}


def _is_model(value: object) -> bool:
    return isinstance(value, ModuleType) and value.__name__.startswith("training.catalogue.")
