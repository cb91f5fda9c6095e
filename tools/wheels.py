"""Writes requirements-wheels.json: the wheels by which pip installs each pinned package on each Linux.

    make wheels

asks the package index through pip, for each machine and Python. A lock file holds digests without file
names. A test reads the written file to check without network that no package has to be compiled.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Final, cast
from urllib.parse import unquote, urlsplit

from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT: Final = Path(__file__).resolve().parent.parent
TABLE: Final = ROOT / "requirements-wheels.json"
LOCKS: Final = tuple(
    path.name for path in sorted(ROOT.glob("requirements*.txt")) if path.stem not in ("requirements-dev",)
)
"""The lock files of images and of `make run`."""
MACHINES: Final = ("x86_64", "aarch64")
PYTHONS: Final = ("3.11", "3.12", "3.13")
GLIBC: Final = 28
"""Minor version of the oldest C library that wheels may need: Debian 10's, RHEL 8's."""


def platforms(machine: str) -> list[str]:
    """Returns the names of Linux platforms in wheels, the newest first."""
    versions = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC, 4, -1)]
    return [*versions, *(f"manylinux{name}_{machine}" for name in ("2014", "2010", "1")), f"linux_{machine}"]


def pins(lock: str, machine: str, python: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Yields (``name==version``, SHA-256 digests of its files) of the pins that hold there."""
    environment = cast("dict[str, str]", default_environment()) | {
        "python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine,
        "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix",
        "implementation_name": "cpython", "platform_python_implementation": "CPython",
    }  # fmt: skip
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if not line[:1].isalnum():
            continue
        pin, *digests = line.split(" --hash=sha256:")
        requirement = Requirement(pin)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            yield f"{requirement.name}{requirement.specifier}", frozenset(each.strip() for each in digests)


def ask(wanted: list[str], machine: str, python: str) -> dict[str, dict[str, str]]:
    """Returns the wheel that pip chooses for each pin: pin -> file name -> digest. Downloads no wheel.

    Raises
    ------
    subprocess.CalledProcessError : a pin has no wheel there; pip prints which.
    """
    with tempfile.TemporaryDirectory(prefix="vigia-") as directory:
        requirements, report = Path(directory) / "requirements.txt", Path(directory) / "report.json"
        requirements.write_text("\n".join(wanted), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        command += ["--no-input", "--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", python, "--implementation", "cp", "--target", directory]
        command += [argument for each in platforms(machine) for argument in ("--platform", each)]
        subprocess.run([*command, "--report", report, "--requirement", requirements], check=True)
        installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    chosen = {}
    for pin, each in zip(wanted, installed, strict=True):
        assert pin.startswith(f"{each['metadata']['name'].lower().replace('_', '-')}=="), (pin, each)
        download = each["download_info"]
        name = unquote(urlsplit(download["url"]).path.rpartition("/")[2])
        chosen[pin] = {name: download["archive_info"]["hashes"]["sha256"]}
    return chosen


def main() -> None:
    table: dict[str, dict[str, str]] = {}
    for machine, python in product(MACHINES, PYTHONS):
        known: set[str] = set()
        for lock in LOCKS:  # one by one: two locks may pin two versions of a package
            wanted = sorted({pin for pin, _ in pins(lock, machine, python)} - known)
            known.update(wanted)
            for pin, wheel in ask(wanted, machine, python).items() if wanted else ():
                table.setdefault(pin, {}).update(wheel)
    TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
