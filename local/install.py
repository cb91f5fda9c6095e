"""Creates the Python environment, and updates it when the pinned packages change.

    python -m local.install VENV REQUIREMENTS [--compile]

It runs before anything is installed, so it uses the standard library alone. Most of an installation is
unpacking, which one pip does on one processor: two run in parallel, each on half of the packages. The file
pins every package with its hash, so neither has to resolve anything.
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
OLDEST_PIP = (22, 3)  # supports --python, so that the new environment needs no pip
QUICK_PIP = (23, 3)  # an older pip compares every file on a package's page with every tag, for seconds
# Each module is compiled when it is first imported; a third of all modules ever is.
OPTIONS = ("--disable-pip-version-check", "--no-input", "--require-hashes", "--no-deps", "--no-compile")
PARTS = min(2, os.cpu_count() or 1)


def pip_of(venv: Path) -> tuple[list[str], tuple[int, ...]]:
    """Returns the command and version of a pip: the environment's, else this Python's, else a new one."""
    python = str(venv / "bin" / "python")
    if not (venv / "bin" / "pip3").exists():
        with suppress(metadata.PackageNotFoundError):
            version = numbers(metadata.version("pip"))
            if version >= OLDEST_PIP:
                return [sys.executable, "-m", "pip", "--python", python], version
        subprocess.run([python, "-m", "ensurepip"], check=True, capture_output=True)
    command = [python, "-m", "pip"]
    shown = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True)
    return command, numbers(shown.stdout.split()[1])


def numbers(version: str) -> tuple[int, ...]:
    """Returns the first two numbers of a version."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def entries_of(requirements: str) -> tuple[list[str], list[str]]:
    """Returns the options and the pinned packages of a requirements file, each with its lines of hashes."""
    entries = re.findall(r"^[^\s#].*(?:\n[ \t]+.*)*", requirements, re.MULTILINE)
    options = [entry for entry in entries if entry.startswith("-")]
    return options, [entry for entry in entries if not entry.startswith("-")]


def parts_of(requirements: str, count: int) -> list[str]:
    """Splits the pinned packages into `count` files of about the same size; each repeats the options."""
    options, packages = entries_of(requirements)
    parts = [packages[number::count] for number in range(min(count, len(packages)))]
    return ["\n".join([*options, *part, ""]) for part in parts]


def install(venv: Path, requirements: Path, log: Path) -> Path | None:
    """Installs the pinned packages. Returns the log of a pip that failed, or None."""
    text = requirements.read_text(encoding="utf-8")
    pip, version = pip_of(venv)
    options, packages = entries_of(text)
    own = [package for package in packages if package.startswith("pip==")]
    if own and version < QUICK_PIP:
        failed = run_pips(pip, ["\n".join([*options, *own, ""])], log)
        if failed:
            return failed
        pip = [str(venv / "bin" / "python"), "-m", "pip"]
    return run_pips(pip, parts_of(text, PARTS), log)


def run_pips(pip: list[str], parts: list[str], log: Path) -> Path | None:
    """Installs each part with a pip of its own, all at once. Returns the log of a failed pip, or None."""
    logs = []
    with tempfile.TemporaryDirectory() as directory:
        running: list[subprocess.Popen[bytes]] = []
        try:
            for number, text in enumerate(parts, 1):
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
        complain("Python 3.11 or newer is required: make PYTHON=/path/to/python3.11")
        return 1
    if re.search(r'["$`\\:\n]', str(venv)):  # pip's scripts quote the path of Python with double quotes
        complain(f'{venv} cannot hold a Python environment: its path contains one of " $ ` \\ :. Move it.')
        return 1
    logs = Path(os.environ.get("VIGIA_VAR") or "var").expanduser() / "log"
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    started = time.monotonic()
    python = venv / "bin" / "python"
    if not os.access(python, os.X_OK):
        # The rest of an environment without its Python is cleared; other directories stay as they are.
        clear = ["--clear"] if (venv / "pyvenv.cfg").exists() else []
        command = [sys.executable, "-m", "venv", "--without-pip", *clear, str(venv)]
        venv_run = subprocess.run(command, capture_output=True, text=True, check=False)
        if venv_run.returncode != 0:
            complain(
                f"The Python environment {venv} could not be created:\n{venv_run.stdout}{venv_run.stderr}"
            )
            return 1
    say(f"Installing {requirements} into {options.venv}; pip's output is in {logs}/install-*.log …")
    failed = install(venv, requirements, logs / "install")
    if failed:
        complain(f"pip failed; the end of {failed}:\n{last_lines(failed, 25)}")
        return 1
    if options.compile:  # files for other versions of Python, which some packages contain, fail and stay
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
