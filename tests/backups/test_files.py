"""The files of a backup: every damage is found, and no line of the tombstones is lost."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import pytest

from backups import archive, encryption, places, store, tombstones
from backups.__main__ import run
from backups.archive import Manifest
from backups.create import work_directory
from backups.errors import BackupError

NAME = "vigia-20260131T020000Z.tar"


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    for kind, suffix in (("artifacts", ""), ("datasets", ".parquet")):
        content = random.Random(kind).randbytes(30_000)
        digest = store.hashlib.sha256(content).hexdigest()
        path = root / kind / digest[:2] / f"{digest}{suffix}"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    return root


@pytest.fixture
def made(tmp_path: Path, stored: Path) -> Path:
    """A folder with one backup."""
    dump = tmp_path / "dump"
    dump.write_bytes(random.Random(1).randbytes(100_000))
    manifest = Manifest("2026-01-31T02:00:00+00:00", "0.2.0", "", 180003, {"a": 1}, {"a": ["0001"]}, {})
    folder = places.Folder(tmp_path / "backups")
    folder.prepare()
    with folder.writer(NAME) as stream:
        archive.write(stream, dump, stored, manifest, list(store.names(stored)))
    assert not manifest.absent
    return folder.path


def unpack(content: bytes, target: Path | None = None) -> Manifest:
    return archive.unpack(io.BytesIO(content), target)


def test_an_archive_holds_every_part_under_its_digest(made: Path, stored: Path, tmp_path: Path) -> None:
    manifest = unpack((made / NAME).read_bytes(), tmp_path / "out")
    assert len(manifest.parts) == 3
    for name in store.names(stored):
        assert (tmp_path / "out/store" / name).read_bytes() == (stored / name).read_bytes()


def test_a_truncated_archive_is_refused_wherever_it_ends(made: Path) -> None:
    content = (made / NAME).read_bytes()
    end = content.rindex(b"}") + 1  # only zeros follow the manifest
    for size in sorted({0, 1, 511, 512, 513, end - 1, *random.Random(2).sample(range(end), 40)}):
        with pytest.raises(BackupError, match=r"truncated|damaged"):
            unpack(content[:size])


def test_a_changed_byte_is_refused_wherever_it_is(made: Path, tmp_path: Path) -> None:
    content = bytearray((made / NAME).read_bytes())
    whole = (made / f"{NAME}.sha256").read_text().split()[0]
    for position in random.Random(3).sample(range(len(content)), 60):
        content[position] ^= 0x10
        changed = tmp_path / "changed"
        changed.write_bytes(content)
        assert store.digest(changed) != whole
        # Without the file of the digest the parts protect themselves; padding and time stamps say nothing.
        try:
            manifest = unpack(bytes(content))
        except BackupError:
            pass
        else:
            content[position] ^= 0x10
            assert manifest.parts == unpack(bytes(content)).parts
            continue
        content[position] ^= 0x10


def rebuilt(content: bytes, leave_out: str = "", add: str = "") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as old, tarfile.open(fileobj=target, mode="w") as new:
        if add:
            new.addfile(tarfile.TarInfo(add), io.BytesIO())
        for member in old:
            if leave_out not in member.name or not leave_out:
                new.addfile(member, old.extractfile(member))
    return target.getvalue()


@pytest.mark.parametrize("part", ["database.dump", "store/artifacts", "manifest.json"])
def test_a_missing_part_is_refused(made: Path, part: str) -> None:
    with pytest.raises(BackupError, match=r"missing|truncated"):
        unpack(rebuilt((made / NAME).read_bytes(), leave_out=part))


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "store/artifacts/aa/../../x", "store/x"])
def test_a_foreign_name_is_refused(made: Path, name: str, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="unexpected entry"):
        unpack(rebuilt((made / NAME).read_bytes(), add=name), tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_a_damaged_file_of_the_store_is_named_in_the_manifest(tmp_path: Path, stored: Path) -> None:
    [first, second] = store.names(stored)
    (stored / first).write_bytes(b"damaged")
    (tmp_path / "dump").write_bytes(b"x")
    manifest = Manifest("", "0.2.0", "", 180003, {}, {}, {})
    needed = [first, second, f"artifacts/00/{'0' * 64}"]
    archive.write(io.BytesIO(), tmp_path / "dump", stored, manifest, needed)
    assert manifest.absent == [first, needed[2]]


def test_a_linked_store_keeps_bytes_that_are_removed_meanwhile(stored: Path, tmp_path: Path) -> None:
    names = list(store.names(stored))
    store.link(stored, tmp_path / "linked")
    for name in names:
        (stored / name).unlink()
    assert list(store.names(tmp_path / "linked")) == names
    assert all(store.digest(tmp_path / "linked" / name) == store.digest_in(name) for name in names)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    folder = places.Folder(tmp_path)
    with pytest.raises(RuntimeError), folder.writer(NAME) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def entry(number: int) -> dict[str, str | None]:
    return {
        "id": f"id-{number}",
        "kind": "key",
        "reference": "ab",
        "moment": None,
        "at": "2026-01-01T00:00:00Z",
    }


def test_tombstones_are_only_added(tmp_path: Path) -> None:
    folder = places.Folder(tmp_path)
    assert tombstones.read(folder) is None
    assert tombstones.add(folder, []) == 0  # makes the file
    assert tombstones.add(folder, [entry(1), entry(2)]) == 2
    before = (tmp_path / tombstones.FILE).read_bytes()
    assert tombstones.add(folder, [entry(2), entry(3)]) == 1
    assert (tmp_path / tombstones.FILE).read_bytes().startswith(before)
    assert list(tombstones.read(folder) or ()) == ["id-1", "id-2", "id-3"]


def test_an_interrupted_append_is_completed_by_the_next_one(tmp_path: Path) -> None:
    folder = places.Folder(tmp_path)
    tombstones.add(folder, [entry(1), entry(2), entry(3)])
    path = tmp_path / tombstones.FILE
    whole = path.read_bytes()
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        tombstones.add(folder, [entry(1), entry(2), entry(3)])
        assert list(tombstones.read(folder) or ()) == ["id-1", "id-2", "id-3"]


def test_a_changed_tombstone_is_refused(tmp_path: Path) -> None:
    folder = places.Folder(tmp_path)
    tombstones.add(folder, [entry(1), entry(2)])
    path = tmp_path / tombstones.FILE
    path.write_bytes(path.read_bytes().replace(b"id-1", b"id-9"))
    with pytest.raises(BackupError, match="line 1 is damaged"):
        tombstones.read(folder)


def test_a_recipient_that_is_no_key_is_refused_in_words() -> None:
    with pytest.raises(BackupError, match="is no recipient"):
        encryption.recipients(["age1nonsense"])
    with pytest.raises(BackupError, match="is no recipient"):
        encryption.recipients(["/nowhere/keys.txt"])


def test_a_received_backup_waits_for_no_unfinished_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIGIA_VAR", str(tmp_path))
    monkeypatch.setenv("BACKUP_TO", str(tmp_path / "backups"))
    folder = places.Folder(tmp_path / "backups")
    with work_directory():
        folder.prepare()
        with folder.writer(NAME) as stream:
            stream.write(b"content")
            assert run(["receive", "vigia-20200101T000000Z.tar"]) == 1
    assert "another backup or restore is running" in capsys.readouterr().err
    assert folder.names() == [NAME]


def test_a_negative_number_of_backups_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["create", str(tmp_path), "--keep", "-1"]) == 1
    assert "is a number of backups" in capsys.readouterr().err
