"""Prints sentences that break the rule for wording: subject, verb, object.

    python tools/wording.py [PATH ...]

It reads docstrings and comments of Python files, and the text of Markdown files. Code blocks, quoted names
in backticks and code in tables are left out. Each pattern is a construction that readers had to read twice.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
ANYWHERE: Final = re.compile(
    r"\b(?:whoever|whomever|whosever|whichever of them|that which|anew|somebody else|nobody else|"
    r"without a word|without more ado|by and by|at a stretch|of its own accord|no more than that)\b",
    re.IGNORECASE,
)
SENTENCE_START: Final = re.compile(r"(?:Who|Whose|Whom|What|Of|That which)\b(?![^.?!]*\?)")
FIRST_LINE: Final = re.compile(
    r"(?:Who|Whose|What|Where|How|Why|When|Of|For|With|In|On|At|From|All|Those|That)\b"
)
FIRST_LINE_ALLOWED: Final = re.compile(r"(?:All tests|In memory)\b")
SKIPPED: Final = {".venv", "var", "migrations", "samples", "images", "decisions", "node_modules", ".git"}


def sentences(text: str) -> Iterator[str]:
    text = re.sub(r"`[^`]*`", "`x`", " ".join(text.split()))
    yield from re.split(r"(?<=[.!?:;])\s+", text)


def of_text(text: str) -> Iterator[str]:
    for sentence in sentences(text):
        if SENTENCE_START.match(sentence) or ANYWHERE.search(sentence):
            yield sentence


def of_python(path: Path) -> Iterator[tuple[int, str]]:
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if not text:
                continue
            line = getattr(node, "lineno", 1)
            first = text.splitlines()[0]
            if FIRST_LINE.match(first) and not FIRST_LINE_ALLOWED.match(first) and not first.endswith("?"):
                yield line, first
            for found in of_text(text):
                if found != first:
                    yield line, found
    block: list[str] = []
    last, start = -1, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or token.string.startswith(("# --", "#!", "# type:", "# noqa")):
            continue
        text = re.sub(r"#\s*(?:noqa|type:|fmt:).*", "", token.string.lstrip("# "))
        if token.start[0] != last + 1:
            yield from ((start, found) for found in of_text(" ".join(block)))
            block, start = [], token.start[0]
        block.append(text)
        last = token.start[0]
    yield from ((start, found) for found in of_text(" ".join(block)))


def of_markdown(path: Path) -> Iterator[tuple[int, str]]:
    text = re.sub(
        r"```.*?```", lambda m: "\n" * m.group().count("\n"), path.read_text(encoding="utf-8"), flags=re.S
    )
    line = 1
    for paragraph in re.split(r"(\n\s*\n|\n(?=[-*|#] )|\n(?=\d+\. ))", text):
        stripped = re.sub(r"^\s*(?:[-*#>]+|\d+\.)\s*", "", paragraph.strip())
        for piece in stripped.split("|") if stripped.startswith("|") or "|" in stripped else [stripped]:
            for found in of_text(piece.strip()):
                if not paragraph.lstrip().startswith("#"):
                    yield line, found
        line += paragraph.count("\n")


def files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_file():
            yield path
        else:
            for each in sorted(path.rglob("*")):
                if each.suffix in (".py", ".md") and not SKIPPED & set(each.relative_to(ROOT).parts):
                    yield each


def broken(paths: list[Path]) -> Iterator[tuple[Path, int, str]]:
    """Sentences that break the rule, with file and line."""
    for path in files(paths):
        for line, sentence in of_python(path) if path.suffix == ".py" else of_markdown(path):
            yield path.relative_to(ROOT), line, sentence


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path)
    wrong = 0
    for path, line, sentence in broken([each.absolute() for each in parser.parse_args().paths] or [ROOT]):
        wrong += 1
        sys.stdout.write(f"{path}:{line}: {sentence[:140]}\n")
    sys.stdout.write(f"{wrong} sentences\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
