"""The store's files, by their names: each name holds the digest of its bytes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from core import env

NAME: Final = re.compile(r"(?:artifacts/([0-9a-f]{2})/|datasets/([0-9a-f]{2})/)([0-9a-f]{64})(?:\.parquet)?")
CHUNK: Final = 2**20


def directory() -> Path:
    return env.var_dir() / "store"


def digest_in(name: str) -> str | None:
    """Returns the digest that a name of the store holds; None for another name."""
    match = NAME.fullmatch(name)
    if match is None or not match[3].startswith(match[1] or match[2]):
        return None
    return match[3] if name.startswith("datasets/") == name.endswith(".parquet") else None


def names(root: Path) -> Iterator[str]:
    """Yields the names of the stored files, in order; temporary files are left out."""
    for kind in ("artifacts", "datasets"):
        for path in sorted((root / kind).glob("*/*")):
            name = path.relative_to(root).as_posix()
            if digest_in(name) and path.is_file() and not path.is_symlink():
                yield name


def link(root: Path, target: Path) -> None:
    """Gives every stored file a second name under `target`, which keeps its bytes if the first is removed.

    Files that cannot be linked (another file system) are copied.
    """
    for name in names(root):
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(root / name, copy)
        except FileNotFoundError:
            continue  # removed by hand: the check of the names reports it
        except OSError:
            shutil.copyfile(root / name, copy)


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def put_in_place(source: Path, root: Path) -> None:
    """Moves verified files into the store; equal names have equal bytes, and a damaged file is repaired."""
    changed = set()
    for name in names(source):
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".partial-{target.name}")
        with suppress(FileNotFoundError):
            partial.unlink()
        try:
            os.link(source / name, partial)
        except OSError:
            shutil.copyfile(source / name, partial)
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
        partial.replace(target)
        changed |= {target.parent, target.parent.parent, root}
    for folder in changed:
        sync_directory(folder)


def remove_others(root: Path, kept: set[str]) -> int:
    """Removes the files to which the restored database cannot refer; returns their number."""
    others = [name for name in names(root) if name not in kept]
    for name in others:
        (root / name).unlink(missing_ok=True)
    return len(others)


def sync_directory(path: Path) -> None:
    """Makes renames in a directory durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
