"""Every pinned package installs without a compiler, on each machine and Python that is supported."""

from __future__ import annotations

import json
from itertools import product

import pytest
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from tools import wheels

TABLE: dict[str, dict[str, str]] = json.loads(wheels.TABLE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("machine", "python"), list(product(wheels.MACHINES, wheels.PYTHONS)))
@pytest.mark.parametrize("lock", wheels.LOCKS)
def test_every_pin_has_a_wheel(lock: str, machine: str, python: str) -> None:
    major, minor = map(int, python.split("."))
    platforms = wheels.platforms(machine)
    usable = set(cpython_tags((major, minor), platforms=platforms))
    usable |= set(compatible_tags((major, minor), f"cp{major}{minor}", platforms))
    lacking = []
    for pin, digests in wheels.pins(lock, machine, python):
        # A wheel counts if it is one of the lock file: the table may be older.
        names = [name for name, digest in TABLE.get(pin, {}).items() if digest in digests]
        if not any(parse_wheel_filename(name)[3] & usable for name in names):
            lacking.append(pin)
    assert not lacking, "no wheel in requirements-wheels.json; `make wheels` looks for one"


def test_the_table_has_no_package_that_no_lock_file_pins() -> None:
    places = product(wheels.LOCKS, wheels.MACHINES, wheels.PYTHONS)
    assert set(TABLE) == {pin for place in places for pin, _ in wheels.pins(*place)}


def test_the_lock_files_of_images_and_of_make_run_are_checked() -> None:
    assert {"requirements.txt", "requirements-web.txt", "requirements-local.txt"} <= set(wheels.LOCKS)
