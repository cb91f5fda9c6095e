"""The file of one backup: a tar that ends with a manifest, in which each part has its digest.

    database.dump    pg_dump's custom format
    store/…          the bytes of the store, under their content addresses
    manifest.json    versions, rows of each table, fingerprints of keys, digests of the parts

The manifest is the last part, so a truncated file has none. Beside the file, NAME.sha256 has the digest of
the whole file, in the format of `sha256sum --check`.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from backups import store
from backups.errors import BackupError

FORMAT: Final = 1
DUMP: Final = "database.dump"
MANIFEST: Final = "manifest.json"
STORE: Final = "store/"
CHUNK: Final = 2**20
LARGEST_MANIFEST: Final = 256 * 2**20


@dataclass
class Manifest:
    """Describes one backup.

    created_at : time of the database's snapshot, ISO 8601 in UTC. vigia, commit : of the code that made the
    backup. postgres : version number of the server, such as 180003. rows : by table. migrations : applied
    ones by application. fingerprints : of secrets, see `fingerprint`. absent : names in the store to which
    rows refer, and whose bytes were missing or damaged. erasures : number of recorded erasures. parts :
    size and digest by name.
    """

    created_at: str
    vigia: str
    commit: str
    postgres: int
    rows: dict[str, int]
    migrations: dict[str, list[str]]
    fingerprints: dict[str, str]
    absent: list[str] = field(default_factory=list)
    erasures: int = 0
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    format: int = FORMAT


def fingerprint(secret: str) -> str:
    """Returns a value that differs for different secrets and does not reveal them."""
    return hmac.new(secret.encode(), b"fingerprint in a Vigia backup", hashlib.sha256).hexdigest()[:32]


class HashingWriter(io.RawIOBase):
    """Passes bytes on to a stream and computes their digest."""

    def __init__(self, target: Any) -> None:
        self.target, self.size = target, 0
        self._hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.target.write(data)
        self._hash.update(data)
        size = memoryview(data).nbytes
        self.size += size
        return size

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


class _Hashing(io.RawIOBase):
    """Computes the digest of what is read."""

    def __init__(self, source: IO[bytes]) -> None:
        self.source, self.hash = source, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self.source.read(size)
        self.hash.update(data)
        return data


def write(target: Any, dump: Path, stored: Path, manifest: Manifest, needed: list[str]) -> None:
    """Writes the archive to a stream and completes the manifest.

    Parameters
    ----------
    stored : directory with the files of the store. needed : names in it to which rows refer.
    """
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as tar:
        _add(tar, manifest, DUMP, dump)
        damaged = set()
        for name in store.names(stored):
            if _add(tar, manifest, STORE + name, stored / name) != store.digest_in(name):
                damaged.add(name)
        manifest.absent = [name for name in needed if name in damaged or STORE + name not in manifest.parts]
        content = json.dumps(asdict(manifest), indent=1, sort_keys=True).encode()
        tar.addfile(_header(MANIFEST, len(content)), io.BytesIO(content))


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o600
    return header


def _add(tar: tarfile.TarFile, manifest: Manifest, name: str, path: Path) -> str:
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        source = _Hashing(stream)
        tar.addfile(_header(name, size), source)
    manifest.parts[name] = {"size": size, "sha256": source.hash.hexdigest()}
    return source.hash.hexdigest()


def unpack(source: IO[bytes], target: Path | None) -> Manifest:
    """Verifies every part of an archive, and writes the parts to a directory unless `target` is None.

    Raises
    ------
    BackupError : the archive is truncated or damaged, a part is missing, or its format is unknown.
    """
    found: dict[str, dict[str, Any]] = {}
    manifest: Manifest | None = None
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=CHUNK) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                if stream is None or manifest is not None:
                    raise BackupError(f"the backup holds an unexpected entry {member.name!r}")
                if member.name == MANIFEST:
                    manifest = _read_manifest(stream.read(LARGEST_MANIFEST))
                    continue
                stored = member.name.startswith(STORE) and store.digest_in(member.name.removeprefix(STORE))
                if not stored and member.name != DUMP:
                    raise BackupError(f"the backup holds an unexpected entry {member.name!r}")
                found[member.name] = _copy(stream, None if target is None else target / member.name)
        while rest := source.read(CHUNK):  # to the end: only there an encrypted file is known to be complete
            if rest.strip(b"\0"):
                raise BackupError("the backup is damaged: something follows its end")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise BackupError(f"the backup is truncated or damaged: {error}") from None
    if manifest is None:
        raise BackupError("the backup is truncated: its manifest is missing")
    for name, part in manifest.parts.items():
        if name not in found:
            raise BackupError(f"the backup is damaged: its part {name} is missing")
        if found[name] != part:
            raise BackupError(f"the backup is damaged: the digest of {name} is not that of its manifest")
    if extra := found.keys() - manifest.parts.keys() or ({DUMP} - found.keys()):
        raise BackupError(f"the backup is damaged: its manifest and its part {min(extra)} do not agree")
    return manifest


def _read_manifest(content: bytes) -> Manifest:
    try:
        raw = json.loads(content)
        if raw["format"] != FORMAT:
            raise BackupError(
                f"the backup has format {raw['format']}; this release reads {FORMAT}: upgrade it"
            )
        return Manifest(**raw)
    except (ValueError, KeyError, TypeError) as error:
        raise BackupError(f"the backup is damaged: its manifest cannot be read ({error})") from None


def _copy(source: IO[bytes], target: Path | None) -> dict[str, Any]:
    reader = _Hashing(source)
    size = 0
    with _open(target) as stream:
        while data := reader.read(CHUNK):
            size += len(data)
            if stream is not None:
                stream.write(data)
        if stream is not None:
            stream.flush()
            os.fsync(stream.fileno())
    return {"size": size, "sha256": reader.hash.hexdigest()}


@contextmanager
def _open(target: Path | None) -> Iterator[IO[bytes] | None]:
    if target is None:
        yield None
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as stream:
        yield stream
