"""The hash of a model's source does not depend on the code's place, and changes with the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import source_hash
from training import catalogue
from vigia_ml import transformers

OLD = '''"""A model."""
from training.schema import Column
from training.transformers.text import CleanText  # cleaned


def build(seed):
    """Builds it."""
    return CleanText(), 1
'''
NEW = '''"""Another text about it."""
from vigia_ml.schema import Column
from vigia_ml.transformers.text import CleanText

def build(seed):
    # In one line.
    return (CleanText(), 1)
'''
# Hashes of the bytes before the library moved; each version trained then has one stored.
THEN = {
    "bikes": "21e4eaae1714",
    "cars": "2a9684ed71c7",
    "cars_v3": "8ea4cda59e20",
    "churn": "0941fef36f1e",
    "houses": "4b9b0b0bb38f",
}


def of(directory: Path, *sources: str) -> str:
    paths = [directory / f"{number}.py" for number in range(len(sources))]
    for path, source in zip(paths, sources, strict=True):
        path.write_text(source, encoding="utf-8")
    return source_hash.of(paths)


def test_module_paths_comments_and_docstrings_do_not_change_the_hash(tmp_path: Path) -> None:
    assert of(tmp_path, OLD) == of(tmp_path, NEW)
    assert of(tmp_path, OLD, "x = 1\n") == of(tmp_path, "x = 1\n", NEW), "nor does the order of files"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (", 1\n", ", 2\n"),
        ("text import", "cars import"),
        ("build(seed)", "build(number)"),
        (", 1\n", ", '1'\n"),
    ],
)
def test_a_change_of_code_changes_the_hash(tmp_path: Path, old: str, new: str) -> None:
    assert old in OLD
    assert of(tmp_path, OLD) != of(tmp_path, OLD.replace(old, new))


def test_hashing_no_source_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no source"):
        source_hash.of([])
    with pytest.raises(FileNotFoundError):
        source_hash.of([tmp_path / "gone.py"])


@pytest.mark.parametrize("name", sorted(THEN))
def test_a_shipped_model_has_the_hash_it_had_before_the_library_moved(name: str) -> None:
    """If a model's code changes, delete its line here and in `source_hash`."""
    assert catalogue.source_sha256(name).startswith(THEN[name])


def test_the_transformers_of_the_library_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "transformers"
    home.mkdir()
    monkeypatch.setattr(transformers, "__file__", str(home / "__init__.py"))
    with pytest.raises(FileNotFoundError, match=r"vigia_ml.transformers holds no source"):
        catalogue.source_sha256("churn")
    (home / "text.py").write_text("x = 1\n", encoding="utf-8")
    one = catalogue.source_sha256("churn")
    (home / "text.py").write_text("x = 2\n", encoding="utf-8")
    assert catalogue.source_sha256("churn") != one


def test_transformers_beside_the_catalogue_are_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, own = tmp_path / "catalogue", tmp_path / "transformers"
    shelf.mkdir()
    own.mkdir()
    (shelf / "fruit.py").write_text("MODEL = 1\n", encoding="utf-8")
    monkeypatch.setattr(catalogue, "HERE", shelf)
    one = catalogue.source_sha256("fruit")
    (own / "text.py").write_text("# moved\n", encoding="utf-8")
    assert catalogue.source_sha256("fruit") == one, "forwarding modules do not count"
    (own / "mine.py").write_text("x = 1\n", encoding="utf-8")
    assert catalogue.source_sha256("fruit") != one
