"""The Python environment: made once, and brought up to date when the pinned packages change.

    python -m local.install VENV REQUIREMENTS [--compile]

It runs before anything is installed, so it needs Python's own library alone. Most of an installation is
unpacking, which one pip does on one processor: two work side by side, each on half of the packages. The file
pins every package with its hash, so neither has anything to resolve.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from local.terminal import complain, last_lines, say

OLDEST = (3, 11)
OLDEST_PIP = (22, 3)  # knows --python, which spares the new environment a pip of its own
# Each module is compiled when it is first imported: a third of all there are ever is.
OPTIONS = ("--disable-pip-version-check", "--no-input", "--require-hashes", "--no-deps", "--no-compile")
PARTS = min(2, os.cpu_count() or 1)


def pip_of(venv: Path) -> list[str]:
    """A pip that installs into the environment: its own, else that of this Python, else one made for it."""
    python = str(venv / "bin" / "python")
    if not (venv / "bin" / "pip").exists():
        with suppress(metadata.PackageNotFoundError):
            numbers = re.findall(r"\d+", metadata.version("pip"))
            if tuple(map(int, numbers[:2])) >= OLDEST_PIP:
                return [sys.executable, "-m", "pip", "--python", python]
        subprocess.run([python, "-m", "ensurepip"], check=True, capture_output=True)
    return [python, "-m", "pip"]


def parts_of(requirements: str, count: int) -> list[str]:
    """The pinned packages in so many files of about the same size; options stand in each."""
    entries = re.findall(r"^[^\s#].*(?:\n[ \t]+.*)*", requirements, re.MULTILINE)
    options = [entry for entry in entries if entry.startswith("-")]
    packages = [entry for entry in entries if not entry.startswith("-")]
    parts = [packages[number::count] for number in range(min(count, len(packages)))]
    return ["\n".join([*options, *part, ""]) for part in parts]


def install(venv: Path, requirements: Path, log: Path) -> Path | None:
    """Install what the file pins. Returns the log of the pip that failed, or None."""
    pip = pip_of(venv)
    logs = []
    with tempfile.TemporaryDirectory() as directory:
        running: list[subprocess.Popen[bytes]] = []
        try:
            for number, text in enumerate(parts_of(requirements.read_text(encoding="utf-8"), PARTS), 1):
                part = Path(directory) / f"{number}.txt"
                part.write_text(text, encoding="utf-8")
                logs.append(log.with_name(f"{log.name}-{number}.log"))
                with logs[-1].open("wb") as output:
                    command = [*pip, "install", *OPTIONS, "--requirement", str(part)]
                    running.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
            codes = [process.wait() for process in running]
        finally:
            for process in running:
                process.terminate()
    return next((log for log, code in zip(logs, codes, strict=True) if code), None)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local.install", description=__doc__.splitlines()[0])
    parser.add_argument("venv", type=Path)
    parser.add_argument("requirements", type=Path)
    parser.add_argument("--compile", action="store_true", help="compile every module at once")
    options = parser.parse_args()
    venv, requirements = options.venv.absolute(), options.requirements
    if sys.version_info < OLDEST:
        complain("Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")
        return 1
    if re.search(r'["$`\\:\n]', str(venv)):  # pip's scripts name their Python between double quotes
        complain(f'{venv} cannot hold a Python environment: its path has one of " $ ` \\ : in it. Move it.')
        return 1
    logs = Path(os.environ.get("VIGIA_VAR") or "var").expanduser() / "log"
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    started = time.monotonic()
    python = venv / "bin" / "python"
    if not os.access(python, os.X_OK):
        # What is left of an environment whose Python is gone is cleared; any other directory is not ours.
        clear = ["--clear"] if (venv / "pyvenv.cfg").exists() else []
        command = [sys.executable, "-m", "venv", "--without-pip", *clear, str(venv)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            complain(f"The Python environment {venv} cannot be made:\n{done.stdout}{done.stderr}")
            return 1
    say(f"Installing {requirements} into {options.venv}; what pip says is in {logs}/install-*.log …")
    failed = install(venv, requirements, logs / "install")
    if failed:
        complain(f"pip failed; the end of {failed}:\n{last_lines(failed, 25)}")
        return 1
    if options.compile:  # some packages carry files for other versions of Python: those stay as they are
        subprocess.run(
            [python, "-m", "compileall", "-q", "-j", "0", venv / "lib"], capture_output=True, check=False
        )
    shutil.copyfile(requirements, venv / requirements.name)
    say(f"  packages installed ({time.monotonic() - started:.1f} s)")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
