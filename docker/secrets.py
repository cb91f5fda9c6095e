"""Makes the secrets of the containers: one file for each reader, in the volume `secrets`.

python -m docker.secrets                   makes the missing secrets and each reader's files
python -m docker.secrets --replace NAME    replaces one: by the file in ./secrets/, else by a random one

A stored secret is never overwritten otherwise. A file in ./secrets/ with the name of a secret is taken
instead of a random one. Exit code 1: refused; the message says why.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

Owner = tuple[int, int]
"""User and group id."""

VIGIA: Owner = (10001, 10001)
POSTGRES: Owner = (999, 999)
VALKEY: Owner = (999, 1000)
PROMETHEUS: Owner = (65534, 65534)
GRAFANA: Owner = (472, 0)
PROXY: Owner = (10002, 10002)


class Refusal(Exception):
    """A secret cannot be made or taken; the message says why and what to do."""


def _random() -> str:
    return secrets.token_hex(32)


def _none() -> str:
    return ""


SECRETS: Mapping[str, Callable[[], str]] = {
    "secret_key": _random,
    "artifact_key": _random,
    "postgres_password": _random,
    "database_password": _random,
    "redis_password": _random,
    "metrics_token": _random,
    "grafana_password": _random,
    # Optional: without it `bootstrap` makes up the admin's password.
    "admin_password": _none,
    # Optional: for backups in S3-compatible storage.
    "aws_access_key_id": _none,
    "aws_secret_access_key": _none,
    # Optional: of the mail server that sends events.
    "email_host_password": _none,
    # Optional: of the receivers in ALERTMANAGER_CONFIG.
    "smtp_password": _none,
    "webhook_url": _none,
}
"""Maker of each secret. The names are those of the files in ./secrets/."""

BOUND_TO_DATA = ("secret_key", "artifact_key", "postgres_password", "database_password")
"""Secrets that belong to existing data: new ones would lock the service out of it."""


def database_url(stored: Mapping[str, str]) -> str:
    return f"postgresql://vigia:{quote(stored['database_password'], safe='')}@postgres:5432/vigia"


def redis_url(stored: Mapping[str, str]) -> str:
    return f"redis://:{quote(stored['redis_password'], safe='')}@redis:6379/0"


def valkey_conf(stored: Mapping[str, str]) -> str:
    """Returns the line of Valkey's configuration; every byte is escaped, so any password is one word."""
    escaped = "".join(f"\\x{byte:02x}" for byte in stored["redis_password"].encode())
    return f'requirepass "{escaped}"\n'


def plain(name: str) -> Callable[[Mapping[str, str]], str]:
    return lambda stored: stored[name]


@dataclass(frozen=True)
class Reader:
    """A service with a directory of its own in the volume."""

    owner: Owner
    files: Mapping[str, Callable[[Mapping[str, str]], str]]


_OF_ALL: Mapping[str, Callable[[Mapping[str, str]], str]] = {
    "secret_key": plain("secret_key"),
    "artifact_key": plain("artifact_key"),
    "metrics_token": plain("metrics_token"),
    "database_url": database_url,
    "redis_url": redis_url,
}
"""The settings of every process want them."""

READERS: Mapping[str, Reader] = {
    "vigia": Reader(VIGIA, {**_OF_ALL, "admin_password": plain("admin_password")}),
    "events": Reader(VIGIA, {**_OF_ALL, "email_host_password": plain("email_host_password")}),
    "postgres": Reader(
        POSTGRES,
        {
            "postgres_password": plain("postgres_password"),
            "database_password": plain("database_password"),
        },
    ),
    "redis": Reader(VALKEY, {"redis_password": plain("redis_password"), "valkey.conf": valkey_conf}),
    "prometheus": Reader(PROMETHEUS, {"metrics_token": plain("metrics_token")}),
    "alertmanager": Reader(
        PROMETHEUS, {"smtp_password": plain("smtp_password"), "webhook_url": plain("webhook_url")}
    ),
    "grafana": Reader(GRAFANA, {"grafana_password": plain("grafana_password")}),
    "backup": Reader(
        VIGIA,
        {
            "database_url": database_url,
            "artifact_key": plain("artifact_key"),
            "aws_access_key_id": plain("aws_access_key_id"),
            "aws_secret_access_key": plain("aws_secret_access_key"),
        },
    ),
}

PREPARED: Mapping[str, Owner] = {"redis": VALKEY, "proxy": PROXY}
"""Volumes whose owner is set here, because the image's own user differs between builds of the image."""


@dataclass
class Places:
    """Directories of the maker, as the compose file mounts them.

    Attributes
    ----------
    volume : the volume `secrets`. own : ./secrets/ of the checkout. volumes : other volumes, by name.
    """

    volume: Path = Path("/secrets")
    own: Path = Path("/own")
    volumes: Path = Path("/volumes")
    stored: Path = field(init=False)

    def __post_init__(self) -> None:
        self.stored = self.volume / "stored"


def own_secrets(directory: Path) -> dict[str, str]:
    """Returns the secrets in ./secrets/ by name, without the line feed at the end of a file.

    Raises
    ------
    Refusal : a file has an unknown name, cannot be read, is empty, or is not one line of UTF-8.
    """
    found: dict[str, str] = {}
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.name.startswith(".") or path.suffix == ".md":
            continue
        shown = f"secrets/{path.name}"
        if path.name not in SECRETS:
            raise Refusal(f"{shown}: no secret has this name; the names are {', '.join(SECRETS)}")
        try:
            text = path.read_bytes().decode("utf-8")
        except OSError as error:
            raise Refusal(f"{shown} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise Refusal(f"{shown} is not UTF-8 text") from None
        text = text.removesuffix("\n").removesuffix("\r")
        if not text:
            raise Refusal(f"{shown} is empty: write the secret into it, or remove the file for a random one")
        if any(character in text for character in "\r\n\0"):
            raise Refusal(f"{shown} has more than one line; a secret is one line")
        found[path.name] = text
    return found


def has_data(volumes: Path) -> bool:
    """Returns whether the volumes hold a database or a store of artifacts."""
    store, postgres = volumes / "data" / "store", volumes / "postgres"
    return (store.is_dir() and any(store.iterdir())) or any(postgres.glob("*/docker/PG_VERSION"))


def read_stored(directory: Path) -> dict[str, str]:
    return {
        name: (directory / name).read_text(encoding="utf-8")
        for name in SECRETS
        if (directory / name).exists()
    }


def write(path: Path, text: str, owner: Owner) -> None:
    """Writes a file of mode 0400 that is complete or not there at all; an equal file stays untouched."""
    if path.exists():
        status = path.stat()
        same = (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (*owner, 0o400)
        if same and path.read_text(encoding="utf-8") == text:
            return
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
        os.fchmod(stream.fileno(), 0o400)
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    _own(new, owner)
    new.replace(path)


def make_directory(path: Path, owner: Owner) -> None:
    """Makes a directory of mode 0700; its reader mounts it read-only."""
    path.mkdir(mode=0o700, exist_ok=True)
    _own(path, owner)


def _own(path: Path, owner: Owner) -> None:
    status = path.lstat()
    if (status.st_uid, status.st_gid) != owner:
        os.chown(path, *owner, follow_symlinks=False)


def make(places: Places, replace: str = "") -> list[str]:
    """Makes the missing secrets and writes every reader's files; returns the names of the new secrets.

    Raises
    ------
    Refusal : a file in ./secrets/ is unusable or differs from the stored secret, or existing data has lost
        its secrets.
    """
    own = own_secrets(places.own)
    make_directory(places.stored, (os.geteuid(), os.getegid()))
    with locked(places.stored):
        return _make(places, own, replace)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lets one maker work at a time: each of two would make other secrets, and mix them."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _make(places: Places, own: Mapping[str, str], replace: str) -> list[str]:
    stored = read_stored(places.stored)
    for name, text in own.items():
        if name != replace and stored.get(name, text) not in ("", text):
            raise Refusal(
                f"secrets/{name} differs from the secret that this installation uses. Restore or remove the "
                "file. To change the secret, see docs/deploying/compose.md, Changing a secret"
            )
    if replace in BOUND_TO_DATA[1:] and replace not in own:
        raise Refusal(f"{replace} belongs to existing data: write the new one into secrets/{replace} first")
    lost = [name for name in BOUND_TO_DATA if name not in stored and name not in own]
    if lost and has_data(places.volumes):
        raise Refusal(
            f"this installation has data, and no {', '.join(lost)}. Run ./upgrade: it moves the secrets of "
            ".env into ./secrets/. Or write each secret that the data was made with into a file of this "
            "name in ./secrets/"
        )
    made = []
    for name, maker in SECRETS.items():
        if stored.get(name) and name != replace:
            continue
        text = own.get(name) or maker()
        if stored.get(name) != text:
            write(places.stored / name, text, (os.geteuid(), os.getegid()))
            stored[name] = text
            if text:
                made.append(f"{name} (from secrets/{name})" if name in own else name)
    for directory, reader in READERS.items():
        make_directory(places.volume / directory, reader.owner)
        for file, content in reader.files.items():
            write(places.volume / directory / file, content(stored), reader.owner)
    return made


def prepare_volumes(volumes: Path) -> None:
    """Gives the volumes of PREPARED to the users that write to them."""
    for name, owner in PREPARED.items():
        root = volumes / name
        if root.is_dir() and (root.stat().st_uid, root.stat().st_gid) != owner:
            for path in root.rglob("*"):
                _own(path, owner)
            _own(root, owner)


def main(arguments: list[str] | None = None, places: Places | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m docker.secrets", description="Makes the secrets of the containers."
    )
    parser.add_argument("--replace", choices=SECRETS, default="", metavar="NAME", help="replaces this secret")
    options = parser.parse_args(arguments)
    places = places or Places()
    try:
        made = make(places, options.replace)
        prepare_volumes(places.volumes)
    except Refusal as refusal:
        sys.stderr.write(f"REFUSED: {refusal}.\n")
        return 1
    sys.stdout.write(f"made: {', '.join(made)}\n" if made else "all secrets exist\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
