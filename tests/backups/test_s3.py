"""Backups in S3-compatible storage, against a real server: `make backup-s3` starts moto's."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from backups import places, tombstones
from backups.errors import BackupError
from tests.backups.stacks import Stack

ENDPOINT = os.environ.get("S3_ENDPOINT", "")
pytestmark = pytest.mark.skipif(not ENDPOINT, reason="needs an S3 server: make backup-s3")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket; its credentials are in the environment, the secret one in a file."""
    name = f"bucket-{tmp_path.name.replace('_', '-').lower()[:40]}"
    request = urllib.request.Request(f"{ENDPOINT}/{name}", method="PUT", data=b"")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    (tmp_path / "secret").write_text("secret\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL", ENDPOINT)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY_FILE", str(tmp_path / "secret"))
    return f"s3://{name}/vigia"


@pytest.fixture
def stacks(bucket: str) -> Iterator[tuple[Stack, Stack]]:
    source, empty = Stack(), Stack()
    source.start()
    source.fill()
    source.copy_key_to(empty)
    yield source, empty
    source.remove()
    empty.remove()


def test_a_backup_goes_to_a_bucket_and_comes_back(
    stacks: tuple[Stack, Stack], bucket: str, tmp_path: Path
) -> None:
    source, empty = stacks
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "key.txt").write_text(f"{identity}\n")
    source.run("backup", bucket)
    source.run("backup", bucket, "--keep", "1", "--encrypt-to", str(identity.to_public()))
    place = places.open_place(bucket)
    [name] = place.names()
    assert name.endswith(".tar.age") and tombstones.read(place) == {}
    source.sql("DELETE FROM knox_authtoken WHERE digest = (SELECT min(digest) FROM knox_authtoken)")
    source.run("backup", bucket, "--tombstones")
    assert len(tombstones.read(place) or ()) == 1
    output = empty.run("restore", f"{bucket}/{name}", "--identity", tmp_path / "key.txt")
    assert "1 rows erased again" in output
    empty.start()
    restored, present = empty.digests(), source.digests()
    # Each place has counted the revocation for itself.
    assert restored.pop("training_generation") != present.pop("training_generation")
    assert restored == present


def test_an_interrupted_upload_never_becomes_a_backup(bucket: str) -> None:
    place = places.open_place(bucket)
    with pytest.raises(RuntimeError), place.writer("vigia-20260131T020000Z.tar") as stream:
        for _ in range(40):
            stream.write(bytes(2**20))  # more than two parts
        raise RuntimeError
    assert place.names() == []


def test_a_large_backup_is_sent_in_parts_and_read_back(bucket: str) -> None:
    place = places.open_place(bucket)
    content = os.urandom(2**20)
    with place.writer("vigia-20260131T020000Z.tar") as stream:
        for _ in range(40):
            stream.write(content)
    with place.reader("vigia-20260131T020000Z.tar") as reader:
        read = 0
        while chunk := reader.read(3_000_001):
            read += len(chunk)
    assert read == 40 * 2**20
    place.remove("vigia-20260131T020000Z.tar")
    assert place.names() == []


def test_a_missing_bucket_and_a_wrong_address_are_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackupError, match="cannot be used"):
        places.open_place("s3://no-such-bucket-anywhere/x").names()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(BackupError, match="cannot be used"):
        places.open_place(bucket).names()
