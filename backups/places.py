"""Places of backups: folders, and buckets of S3-compatible storage.

A backup appears under its name when all its bytes are there: a folder has a temporary name until then, and
S3 shows an object when its upload is complete. The file of tombstones is beside the backups.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, Protocol

from backups import store
from backups.archive import HashingWriter
from backups.errors import BackupError
from core import env

NAME: Final = re.compile(r"vigia-\d{8}T\d{6}Z(-before-restore)?\.tar(\.age)?")
DIGEST: Final = ".sha256"
PARTIAL: Final = ".partial-"
CHUNK: Final = 2**20
PART: Final = 16 * 2**20
"""Bytes of one part of an upload; S3 accepts 10,000 parts, so a backup may have 156 GiB."""


class Place(Protocol):
    """A folder or bucket of backups; `label` is its name for people."""

    label: str

    def names(self) -> list[str]:
        """Returns the names of the complete backups, oldest first."""

    def writer(self, name: str) -> Any:
        """Gives a stream; the backup appears when the block ends without an error. It yields the digest."""

    def reader(self, name: str) -> Any: ...

    def read(self, name: str) -> bytes | None:
        """Returns a small file; None if it does not exist."""

    def write(self, name: str, content: bytes) -> None:
        """Replaces a small file as a whole."""

    def append(self, name: str, content: bytes) -> None: ...

    def remove(self, name: str) -> None: ...


class Folder:
    def __init__(self, path: Path) -> None:
        self.path, self.label = path, str(path)

    def prepare(self) -> None:
        """Makes the folder, and removes what an interrupted backup left."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in self.path.glob(f"{PARTIAL}*"):
                left.unlink()
        except OSError as error:
            raise BackupError(f"the folder {self.path} cannot be used: {error.strerror}") from error

    def names(self) -> list[str]:
        try:
            return sorted(path.name for path in self.path.iterdir() if NAME.fullmatch(path.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BackupError(f"the folder {self.path} cannot be used: {error.strerror}") from error

    @contextmanager
    def writer(self, name: str) -> Iterator[HashingWriter]:
        partial = self.path / f"{PARTIAL}{name}"
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                stream = HashingWriter(file)
                yield stream
                file.flush()
                os.fsync(file.fileno())
            # The disk may return other bytes than it got.
            if store.digest(partial) != stream.digest:
                raise BackupError(f"{partial} does not hold what was written to it: check the disk")
            self.write(name + DIGEST, _digest_line(stream.digest, name))
            partial.replace(self.path / name)
            store.sync_directory(self.path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    @contextmanager
    def reader(self, name: str) -> Iterator[IO[bytes]]:
        try:
            stream = (self.path / name).open("rb")
        except OSError as error:
            raise BackupError(f"{self.path / name} cannot be read: {error.strerror}") from error
        with stream:
            yield stream

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        partial = self.path / f"{PARTIAL}{name}"
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path / name)
        store.sync_directory(self.path)

    def append(self, name: str, content: bytes) -> None:
        with os.fdopen(os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":  # an interrupted append
                    content = b"\n" + content
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        store.sync_directory(self.path)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)
        (self.path / (name + DIGEST)).unlink(missing_ok=True)


class Bucket:
    """A bucket, by `s3://bucket/prefix` and the usual variables of S3's clients (AWS_ENDPOINT_URL, …)."""

    def __init__(self, url: str) -> None:
        try:
            import obstore
            from obstore.store import S3Store
        except ImportError:
            raise BackupError(
                "S3 needs the package obstore: pip install --require-hashes -r requirements-backup.txt"
            ) from None
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        endpoint = env.text("AWS_ENDPOINT_URL", "")
        options: dict[str, Any] = {"region": env.text("AWS_REGION", "us-east-1")}
        keys = {
            "access_key_id": env.text("AWS_ACCESS_KEY_ID", ""),
            "secret_access_key": env.text("AWS_SECRET_ACCESS_KEY", ""),
            "session_token": env.text("AWS_SESSION_TOKEN", ""),
        }
        options |= {name: value for name, value in keys.items() if value}
        if endpoint:
            options["endpoint"] = endpoint
        self.label, self._obstore = url, obstore
        self._store: Any = S3Store(
            bucket,
            prefix=prefix.strip("/") or None,
            client_options={"allow_http": endpoint.startswith("http://"), "timeout": "10m"},
            retry_config=None,
            **options,
        )

    def prepare(self) -> None:
        self.names()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, self._obstore.exceptions.BaseError) as error:
            reason = " ".join(str(error).split())[:400]
            raise BackupError(f"{self.label} cannot be used: {reason}") from None

    def names(self) -> list[str]:
        with self._explained():
            listed = [item["path"] for batch in self._obstore.list(self._store) for item in batch]
        return sorted(name for name in listed if NAME.fullmatch(name))

    @contextmanager
    def writer(self, name: str) -> Iterator[HashingWriter]:
        with self._explained():
            upload = self._obstore.open_writer(self._store, name, buffer_size=PART, max_concurrency=2)
            stream = HashingWriter(upload)
            try:
                yield stream
            except BaseException:
                # Not closed: an upload that is not completed never becomes an object.
                del stream, upload
                raise
            upload.close()
            digest = hashlib.sha256()
            for chunk in self._obstore.get(self._store, name).stream(min_chunk_size=CHUNK):
                digest.update(chunk)
            if digest.hexdigest() != stream.digest:
                self.remove(name)
                raise BackupError(f"{self.label}/{name} does not hold what was sent, and was removed")
            self.write(name + DIGEST, _digest_line(stream.digest, name))

    @contextmanager
    def reader(self, name: str) -> Iterator[Any]:
        try:
            with self._explained():
                reader = self._obstore.open_reader(self._store, name, buffer_size=8 * CHUNK)
        except FileNotFoundError:
            raise BackupError(f"{self.label} holds no {name}") from None
        yield _ObjectReader(reader)

    def read(self, name: str) -> bytes | None:
        try:
            with self._explained():
                return bytes(self._obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        with self._explained():
            self._obstore.put(self._store, name, content)

    def append(self, name: str, content: bytes) -> None:
        """Replaces the object by a longer one: S3 cannot append."""
        before = self.read(name) or b""
        if before and not before.endswith(b"\n"):
            before += b"\n"
        self.write(name, before + content)

    def remove(self, name: str) -> None:
        for each in (name, name + DIGEST):
            with suppress(FileNotFoundError), self._explained():
                self._obstore.delete(self._store, each)


class _ObjectReader:
    """Reads an object as a file; S3's client returns buffers of its own."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def read(self, size: int = -1) -> bytes:
        return bytes(self._reader.read(None if size < 0 else size))


def _digest_line(digest: str, name: str) -> bytes:
    return f"{digest}  {name}\n".encode()


def open_place(text: str) -> Folder | Bucket:
    """Returns the place that a user names: `s3://bucket/prefix`, or a folder."""
    if text.startswith("s3://"):
        return Bucket(text)
    if "://" in text:
        raise BackupError(f"{text} is no place for backups: give a folder, or s3://bucket/prefix")
    return Folder(Path(text).expanduser().absolute())


def split(backup: str) -> tuple[Folder | Bucket, str]:
    """Returns the place and the name of the backup that a user names."""
    head, _, name = backup.rpartition("/")
    return open_place(head or "."), name
