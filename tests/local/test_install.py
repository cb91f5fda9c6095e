"""`make install` in a directory with an awkward name: the installed packages and the output."""

from __future__ import annotations

import base64
import ensurepip
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from local import install
from local.install import parts_of

ROOT = Path(__file__).resolve().parents[2]
AWKWARD = "Ana's new & (old); *checkout* %h #1 ñ"


def make_wheel(directory: Path, name: str) -> str:
    """Writes a wheel of one module and one script; returns the line that pins it."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": "def main():\n    print('at work')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name}={name}:main\n",
    }
    records = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        records.append(f"{path},sha256={digest},{len(text)}")
    files[f"{info}/RECORD"] = "\n".join([*records, f"{info}/RECORD,,", ""])
    wheel = directory / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return (
        f"{name}==1.0 \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n    # via us\n"
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Returns a checkout whose pinned packages are two tiny wheels."""
    directory = tmp_path / AWKWARD
    directory.mkdir()
    shutil.copy(ROOT / "Makefile", directory)
    shutil.copytree(ROOT / "local", directory / "local", ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "wheels").mkdir()
    pinned = [make_wheel(directory / "wheels", name) for name in ("one", "two")]
    (directory / "requirements-local.txt").write_text("# made by a tool\n" + "".join(pinned))
    return directory


def make(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    dropped = ("VIGIA_VAR", "TEST_VAR", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VENV")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "wheels", "PIP_NO_CACHE_DIR": "1"}
    return subprocess.run(
        ["make", f"PYTHON={sys.executable}", *arguments],
        cwd=tree, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_an_installation_is_quiet_in_any_directory_and_is_not_repeated(tree: Path) -> None:
    done = make(tree, "install")
    assert done.returncode == 0, done.stdout + done.stderr
    output = done.stdout.splitlines()
    assert len(output) == 2, "pip's output goes to a file"
    assert "var/log/install-*.log" in output[0]
    assert output[1].startswith("  packages installed (")
    logs = sorted((tree / "var" / "log").glob("install-*.log"))
    assert all("Successfully installed" in log.read_text() for log in logs)
    for name in ("one", "two"):
        script = subprocess.run([tree / ".venv" / "bin" / name], capture_output=True, text=True, check=True)
        assert script.stdout == "at work\n"
    again = make(tree, "install")
    assert (again.returncode, again.stdout) == (0, "")


def test_a_path_that_no_script_can_name_is_refused(tree: Path) -> None:
    moved = tree.with_name("in $HOME")
    tree.rename(moved)
    done = make(moved, "install")
    assert done.returncode != 0
    assert "cannot hold a Python environment" in done.stderr
    assert not (moved / ".venv").exists()


def test_a_package_with_another_hash_ends_the_installation_with_pips_message(tree: Path) -> None:
    make_wheel(tree / "wheels", "two")
    with zipfile.ZipFile(tree / "wheels" / "two-1.0-py3-none-any.whl", "a") as archive:
        archive.writestr("more.py", "")
    done = make(tree, "install")
    assert done.returncode != 0
    assert "pip failed" in done.stderr
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert not (tree / ".venv" / "requirements-local.txt").exists(), "the next try installs again"


def pip_of_another_version(directory: Path) -> str:
    """Writes Python's own pip as version 99.0 into the directory; returns the line that pins it."""
    [bundled] = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    version = ensurepip.version()
    wheel = directory / "pip-99.0-py3-none-any.whl"
    named = ("pip/__init__.py", f"pip-{version}.dist-info/METADATA", f"pip-{version}.dist-info/RECORD")
    with zipfile.ZipFile(bundled) as source, zipfile.ZipFile(wheel, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name in named:
                content = content.replace(version.encode(), b"99.0")
            target.writestr(name.replace(f"pip-{version}", "pip-99.0"), content)
    return f"pip==99.0 \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def test_a_slow_pip_first_installs_the_pinned_one(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "QUICK_PIP", (98, 0))  # every pip counts as slow
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "wheels")
    monkeypatch.chdir(tree)
    requirements = tree / "requirements-local.txt"
    with requirements.open("a") as file:
        file.write(pip_of_another_version(tree / "wheels"))
    venv = tree / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (tree / "var").mkdir()
    assert install.install(venv, requirements, tree / "var" / "install") is None
    assert install.pip_of(venv) == ([str(venv / "bin" / "python"), "-m", "pip"], (99, 0))
    assert {path.name for path in (venv / "bin").iterdir()} >= {"one", "two", "pip3"}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_pinned_packages_are_divided_without_loss(count: int) -> None:
    text = (ROOT / "requirements-local.txt").read_text(encoding="utf-8")
    parts = parts_of(text, count)
    assert len(parts) == count
    joined = "".join(parts)
    assert sorted(line for line in text.splitlines() if "--hash" in line) == sorted(
        line for line in joined.splitlines() if "--hash" in line
    )
    pins = [len([line for line in part.splitlines() if "==" in line.split(" ")[0]]) for part in parts]
    assert max(pins) - min(pins) <= 1
    assert parts_of("--index-url https://mirror\na==1\nb==2\n", 2) == [
        "--index-url https://mirror\na==1\n",
        "--index-url https://mirror\nb==2\n",
    ]
