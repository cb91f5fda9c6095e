"""The platform's version and, where it can be known, the commit it runs from."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

VERSION = "0.1.0"


@cache
def commit() -> str:
    """Commit of the running code: VIGIA_COMMIT (set in images), else git's answer, else empty."""
    given = os.environ.get("VIGIA_COMMIT")
    if given:
        return given[:40]
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip()


def code_version(source_sha256: str) -> str:
    """What made a version: platform version, commit, and hash of the model's own source."""
    here = commit()
    return f"{VERSION}{f'+{here}' if here else ''} source:{source_sha256[:12]}"
