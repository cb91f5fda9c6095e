"""Encryption of a whole backup in the format of age: public keys encrypt, an identity decrypts.

The package pyrage does it; the program `age` (`age --decrypt --identity FILE`) opens the same files.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from backups.errors import BackupError

SUFFIX: Final = ".age"
SECRET: Final = "AGE-SECRET-KEY-"  # noqa: S105 - the beginning of every identity


def _pyrage() -> Any:
    try:
        import pyrage
    except ImportError:
        raise BackupError(
            "encryption needs the package pyrage: pip install --require-hashes -r requirements-backup.txt"
        ) from None
    return pyrage


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def recipients(texts: list[str]) -> list[Any]:
    """Parses public keys (`age1…`, `ssh-ed25519 …`, `ssh-rsa …`), or files of them.

    Raises
    ------
    BackupError : a text is neither.
    """
    pyrage, parsed = _pyrage(), []
    for text in texts:
        is_key = text.startswith(("age1", "ssh-"))
        try:
            keys = [text] if is_key else _lines(Path(text).read_text(encoding="utf-8"))
            if not keys:
                raise ValueError("the file holds no key")
            for key in keys:
                kind = pyrage.ssh if key.startswith("ssh-") else pyrage.x25519
                parsed.append(kind.Recipient.from_str(key))
        except (OSError, ValueError, pyrage.RecipientError) as error:
            raise BackupError(
                f"{text!r} is no recipient ({error}): give a public key of age or SSH, or a file of them"
            ) from None
    return parsed


def identities(path: Path) -> list[Any]:
    """Reads the private keys of a file that `age-keygen` or `ssh-keygen` wrote."""
    pyrage = _pyrage()
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        if content.startswith(b"-----BEGIN"):
            return [pyrage.ssh.Identity.from_buffer(content)]
        keys = [line for line in _lines(content.decode()) if line.startswith(SECRET)]
        if not keys:
            raise ValueError("it holds no AGE-SECRET-KEY")
        return [pyrage.x25519.Identity.from_str(key) for key in keys]
    except (OSError, ValueError, pyrage.IdentityError) as error:
        raise BackupError(f"the identity {path} cannot be used: {error}") from None


@contextmanager
def encrypted(target: Any, to: list[Any]) -> Iterator[IO[bytes]]:
    """Gives a stream whose bytes are encrypted into `target`; the block's end completes them."""
    pyrage = _pyrage()
    with _piped(lambda source: pyrage.encrypt_io(source, target, to)) as stream:
        yield stream


@contextmanager
def decrypted(source: IO[bytes], identity: Path) -> Iterator[IO[bytes]]:
    """Gives a stream of the decrypted bytes of `source`.

    Raises
    ------
    BackupError : the identity is another one, or the bytes are damaged. Bytes read before the damage was
        found were authentic.
    """
    pyrage, keys = _pyrage(), identities(identity)
    end, start = os.pipe()
    failures: list[Exception] = []

    def run() -> None:
        with os.fdopen(start, "wb") as writer, suppress(BrokenPipeError):
            try:
                pyrage.decrypt_io(source, writer, keys)
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        with os.fdopen(end, "rb") as reader:
            yield reader
    except Exception:
        thread.join()
        _explain(failures)
        raise
    thread.join()
    _explain(failures)


def _explain(failures: list[Exception]) -> None:
    for error in failures:
        if "Broken pipe" not in str(error):
            raise BackupError(f"the backup cannot be decrypted: {error}") from None


@contextmanager
def _piped(consume: Any) -> Iterator[IO[bytes]]:
    """Gives a stream that a thread consumes; raises the thread's error."""
    end, start = os.pipe()
    failures: list[BaseException] = []

    def run() -> None:
        with os.fdopen(end, "rb") as source:
            try:
                consume(source)
            except BaseException as error:  # raised below, in the caller's thread
                failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        with os.fdopen(start, "wb") as stream:
            yield stream
    except BrokenPipeError:  # the thread's error is the reason
        thread.join()
        if not failures:
            raise
    thread.join()
    if failures:
        raise failures[0]
