"""Environments with the packages of one requirements file alone, linked from the environment of the tests."""

from __future__ import annotations

import os
import venv
from importlib.metadata import distribution
from importlib.util import cache_from_source
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def pinned(requirements: Path) -> list[Requirement]:
    """Returns the pins of a requirements file that hold for this platform and this Python."""
    lines = requirements.read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line.removesuffix(" \\")) for line in lines if line[:1].isalnum()]
    return [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]


def environment_of(requirements: Path, directory: Path) -> Path:
    """Makes an environment in `directory` and returns its Python; its files are hard links.

    Raises
    ------
    AssertionError : the environment of the tests has another version than a pin.
    """
    venv.create(directory, symlinks=True)
    python = directory / "bin" / "python"
    [packages] = directory.glob("lib/python3*/site-packages")
    for pin in pinned(requirements):
        installed = distribution(pin.name)
        assert installed.version in pin.specifier, f"{pin}, not {installed.version}: make install-dev"
        own = {path for path in installed.files or () if ".." not in path.parts}  # programs are written below
        files = {Path(str(path)) for path in own}
        files |= {Path(cache_from_source(str(path))) for path in own if path.suffix == ".py"}
        root = Path(str(installed.locate_file("")))
        for file in files:
            if (root / file).exists():
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                os.link(root / file, packages / file)
        for program in installed.entry_points.select(group="console_scripts"):
            script = directory / "bin" / program.name
            call = f"from {program.module} import {program.attr}\nraise SystemExit({program.attr}())\n"
            script.write_text(f"#!{python}\n{call}", encoding="utf-8")
            script.chmod(0o755)
    return python
