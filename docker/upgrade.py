"""Decides how `./upgrade` gets from the installed version to the version of this image.

python -m docker.upgrade plan DATA       prints the installed version, this version, and `rolling` or `stop`
python -m docker.upgrade changes FROM    prints what CHANGELOG.md says about the versions after FROM

Exit code 1: refused; the message says why and what to do. The plan needs no settings and no database.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from core.version import VERSION

STOPS: Mapping[str, str] = {
    "0.2.0": "the proxy takes over web's port, and the secrets move from .env into a volume",
}
"""Versions that cannot be installed while the version before them answers, each with its reason. No upgrade
may skip one, because only its own `./upgrade` knows what it changes."""

CHANGELOG = Path(__file__).resolve().parent.parent / "CHANGELOG.md"
STAMP = "version"
"""File in the data directory that `bootstrap` writes after each migration."""
FIRST = "0.1.0"
"""The version before the first one that wrote the file."""


class Refusal(Exception):
    """The upgrade is not possible; the message says why and what to do."""


def number(version: str) -> tuple[int, ...]:
    """Returns a version's comparable number. Raises `Refusal` for a text that is no version."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise Refusal(f"{version!r} is not a version: three numbers, such as 1.2.3")
    return tuple(map(int, version.split(".")))


def installed(data: Path) -> str:
    """Returns the version that migrated the database last, by its data directory. Raises `Refusal`."""
    try:
        return (data / STAMP).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        if (data / "store").is_dir():
            return FIRST
    raise Refusal("there is no installation to upgrade; start one: docker compose up --detach")


def mode(old: str, new: str, stops: Mapping[str, str] = STOPS) -> str:
    """Returns ``stop`` if the service must stop for the upgrade, else ``rolling``. Raises `Refusal`."""
    if number(new) < number(old):
        raise Refusal(
            f"version {old} is installed, and an older version ({new}) does not know its database. "
            f"Use version {old}, or restore a backup that {new} made: docs/deploying/upgrading.md"
        )
    passed = sorted((each for each in stops if number(old) < number(each) <= number(new)), key=number)
    for each in passed:
        if each != new:
            raise Refusal(
                f"version {each} cannot be skipped: {stops[each]}. First git checkout v{each} and ./upgrade, "
                "then upgrade to this version"
            )
    return "stop" if passed else "rolling"


def changes(text: str, old: str, new: str) -> str:
    """Returns the sections of a changelog after version `old`, up to and including `new`."""
    sections = re.split(r"^(?=## \[)", text, flags=re.MULTILINE)[1:]
    shown = []
    for section in sections:
        heading = re.match(r"## \[(\d+\.\d+\.\d+)\]", section)
        if heading and number(old) < number(heading[1]) <= number(new):
            shown.append(section.strip())
    return "\n\n".join(shown)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m docker.upgrade", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("plan").add_argument("data", type=Path, help="the data directory")
    commands.add_parser("changes").add_argument("old", help="the installed version")
    options = parser.parse_args(arguments)
    try:
        if options.command == "plan":
            old = installed(options.data)
            sys.stdout.write(f"{old} {VERSION} {mode(old, VERSION)}\n")
        else:
            text = changes(CHANGELOG.read_text(encoding="utf-8"), options.old, VERSION)
            sys.stdout.write(f"{text}\n" if text else "")
    except Refusal as refusal:
        sys.stderr.write(f"REFUSED: {refusal}.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
