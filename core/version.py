"""The platform's version and, if known, the commit it runs from."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

VERSION = "0.2.0"


@cache
def commit() -> str:
    """Returns the commit of the running code: VIGIA_COMMIT (set in images), else git's answer, else empty."""
    from_environment = os.environ.get("VIGIA_COMMIT")
    if from_environment:
        return from_environment[:40]
    try:
        git = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except OSError:
        return ""
    return git.stdout.strip()


def code_version(source_sha256: str) -> str:
    """Returns platform version, commit and hash of a model's source, as a version records them."""
    return f"{without_source()} source:{source_sha256[:12]}"


def without_source() -> str:
    """Returns platform version and commit, for a version that no source here declares."""
    revision = commit()
    return f"{VERSION}{f'+{revision}' if revision else ''}"
