"""The plan of ./upgrade, and the comparison of a load with the log; docker/check.sh runs both for real."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from core.version import VERSION
from docker import upgrade
from docker.load import differences

ROOT = Path(__file__).resolve().parent.parent
STOPS = {"0.2.0": "the port moves", "0.4.0": "the log moves"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("0.1.0", "0.2.0", "stop"),
        ("0.2.0", "0.2.0", "rolling"),
        ("0.2.0", "0.3.1", "rolling"),
        ("0.3.1", "0.4.0", "stop"),
        ("0.4.0", "0.10.0", "rolling"),
    ],
)
def test_an_upgrade_stops_the_service_only_for_a_declared_version(old: str, new: str, expected: str) -> None:
    assert upgrade.mode(old, new, STOPS) == expected


@pytest.mark.parametrize(("old", "new", "first"), [("0.1.0", "0.3.0", "0.2.0"), ("0.1.9", "0.4.0", "0.2.0")])
def test_a_version_that_needs_a_stop_cannot_be_skipped(old: str, new: str, first: str) -> None:
    with pytest.raises(upgrade.Refusal, match=f"version {first} cannot be skipped: {STOPS[first]}"):
        upgrade.mode(old, new, STOPS)


def test_a_downgrade_is_refused() -> None:
    with pytest.raises(upgrade.Refusal, match=r"0\.10\.0 is installed, and an older version \(0\.9\.0\)"):
        upgrade.mode("0.10.0", "0.9.0", STOPS)


def test_the_declared_stops_are_versions_up_to_this_one() -> None:
    assert all(upgrade.number(each) <= upgrade.number(VERSION) for each in upgrade.STOPS)
    assert all(reason and not reason.endswith(".") for reason in upgrade.STOPS.values())


def test_the_installed_version_is_that_of_the_last_migration(tmp_path: Path) -> None:
    with pytest.raises(upgrade.Refusal, match="no installation"):
        upgrade.installed(tmp_path)
    (tmp_path / "store").mkdir()
    assert upgrade.installed(tmp_path) == "0.1.0", "it wrote no file"
    (tmp_path / "version").write_text("0.2.0\n", encoding="utf-8")
    assert upgrade.installed(tmp_path) == "0.2.0"


def test_an_unreadable_version_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "version").write_text("latest\n", encoding="utf-8")
    assert upgrade.main(["plan", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "REFUSED: 'latest' is not a version: three numbers, such as 1.2.3.\n"


def test_the_changes_are_the_sections_after_the_installed_version() -> None:
    text = "## [0.3.0] - 2027-01-01\nthird\n\n## [0.2.0] - unreleased\nsecond\n\n## [0.1.0]\nold\n"
    assert upgrade.changes(text, "0.2.0", "0.3.0") == "## [0.3.0] - 2027-01-01\nthird"
    assert upgrade.changes(text, "0.1.0", "0.2.0") == "## [0.2.0] - unreleased\nsecond"
    assert upgrade.changes(text, "0.3.0", "0.3.0") == ""
    assert upgrade.changes(text, "0.1.0", "0.3.0").count("## [") == 2


def test_the_changelog_of_this_checkout_has_a_section_for_this_version() -> None:
    heading = upgrade.CHANGELOG.read_text(encoding="utf-8").partition(f"## [{VERSION}]")[2]
    assert heading
    # The image needs the file.
    assert "!CHANGELOG.md" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def test_the_script_is_posix_shell() -> None:
    subprocess.run(["sh", "-n", str(ROOT / "upgrade")], check=True)
    assert (ROOT / "upgrade").stat().st_mode & 0o111


def test_a_load_is_complete_if_the_log_has_each_answer_once() -> None:
    result = {"acknowledged": {"load-1-0": "a", "load-1-1": "b"}}
    assert differences(result, [("load-1-1", "b"), ("load-1-0", "a")]) == []
    assert differences(result, [("load-1-1", "b")]) == ["answered and not logged: ('load-1-0', 'a')"]
    assert differences(result, [("load-1-1", "b"), ("load-1-0", "a"), ("load-1-0", "c")]) == [
        "logged 2 times: load-1-0"
    ]
    assert differences(result, [("load-1-1", "b"), ("load-1-0", "a"), ("load-1-2", "c")]) == [
        "logged and not answered: load-1-2"
    ]
