"""Docs, docstrings and comments keep the rule for sentences: subject, verb, object."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import wording


def test_no_sentence_has_a_banned_construction() -> None:
    assert [f"{path}:{line}: {sentence}" for path, line, sentence in wording.broken([wording.ROOT])] == []


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ('"""Who is refused reads why."""\n', "Who is refused reads why."),
        ('"""Of a lease, before it runs out."""\n', "Of a lease, before it runs out."),
        ("# It is made anew.\n", "It is made anew."),
    ],
)
def test_banned_constructions_in_python_are_found(tmp_path: Path, source: str, sentence: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(source, encoding="utf-8")
    assert [found for _, found in wording.of_python(path)] == [sentence]


def test_banned_constructions_in_markdown_are_found_outside_of_code(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        "# Who asks\n\nWhat made it is gone. Who asks?\n\n```sh\nwhoever\n```\n", encoding="utf-8"
    )
    assert [found for _, found in wording.of_markdown(path)] == ["What made it is gone."]
