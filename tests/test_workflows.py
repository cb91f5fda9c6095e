"""Checks of GitHub's workflows that need no GitHub: rights, pins, and that what they run exists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".github" / "workflows"
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.yml"))}
# YAML 1.1 reads the key `on` as true.
WORKFLOWS: dict[str, dict[Any, Any]] = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
JOBS = {(name, job): declared for name, flow in WORKFLOWS.items() for job, declared in flow["jobs"].items()}
WRITES = {
    ("release", "build"): {"packages"},
    ("release", "publish"): {"packages", "id-token", "attestations"},
}
"""The jobs that may write, and what. All others read the code."""
each_job = pytest.mark.parametrize("job", JOBS, ids="-".join)


def steps(*, of: tuple[str, str] | None = None) -> Iterator[dict[str, Any]]:
    for name, job in JOBS.items():
        if of in (None, name):
            yield from job.get("steps", [])


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))


def test_the_workflows_are_those_of_contributing() -> None:
    assert set(WORKFLOWS) == {"ci", "containers", "nightly", "release"}
    assert set(WORKFLOWS["ci"][True]) == {"push", "pull_request"}
    assert set(WORKFLOWS["containers"][True]) == {"workflow_call"}
    assert set(WORKFLOWS["nightly"][True]) == {"schedule", "workflow_dispatch"}
    assert WORKFLOWS["release"][True] == {"push": {"tags": ["v*"]}}
    # It runs the code of strangers with the rights of the repository.
    assert all("pull_request_target" not in text for text in TEXTS.values())


@each_job
def test_a_job_has_no_more_rights_than_it_needs(job: tuple[str, str]) -> None:
    assert WORKFLOWS[job[0]]["permissions"] == {}
    rights = JOBS[job]["permissions"]
    assert rights.pop("contents") == "read"
    assert rights == dict.fromkeys(WRITES.get(job, ()), "write")
    assert "secrets" not in JOBS[job]
    if "steps" in JOBS[job]:
        assert JOBS[job]["timeout-minutes"]
        assert "latest" not in JOBS[job]["runs-on"]


@pytest.mark.parametrize("name", TEXTS)
def test_actions_are_pinned_to_a_commit_with_its_version(name: str) -> None:
    for line in re.findall(r"^.*\buses: (.*)$", TEXTS[name], re.MULTILINE):
        if line.startswith("./"):
            assert "workflow_call" in yaml.safe_load((ROOT / line).read_text(encoding="utf-8"))[True]
            continue
        assert re.fullmatch(r"[a-z-]+/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_an_action_has_one_commit_in_all_workflows() -> None:
    pins = {step["uses"].partition("@")[::2] for step in steps() if "uses" in step}
    assert len(pins) == len({action for action, _ in pins})


def test_no_step_keeps_credentials_or_runs_an_expression() -> None:
    """An expression within a script becomes code: a branch's name could hold a command."""
    assert list(steps())
    for step in steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        assert "${{" not in step.get("run", "")


def test_every_make_target_and_every_script_of_a_workflow_exists() -> None:
    scripts = [step["run"] for step in steps() if "run" in step]
    named = {target for script in scripts for target in re.findall(r"\bmake ([a-z-]+)", script)}
    long = [entry["target"] for entry in JOBS["nightly", "long"]["strategy"]["matrix"]["include"]]
    assert named == {"test", "test-clients", "test-jobs", "test-models"}
    assert {*named, *long} <= make_targets()
    assert {"faults", "soak", "wheels", "backup-kills", "backup-s3", "schemathesis"} == set(long)
    files = {
        word for script in scripts for word in re.findall(r"(?:^|\s)((?:[a-z.]+/)+[a-z]+\.[a-z]+)", script)
    }
    assert {"docker/check.sh", "core/version.py"} <= files
    for name in files:
        assert (ROOT / name).is_file(), name
    assert os.access(ROOT / "docker" / "check.sh", os.X_OK)
    check = (ROOT / "docker" / "check.sh").read_text(encoding="utf-8")
    [options] = [step["env"]["OPTIONS"] for step in steps(of=("containers", "check")) if "env" in step]
    for option in re.findall(r"--[a-z]+", options):
        assert f"{option})" in check


def test_the_settings_of_long_runs_are_read_by_their_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for entry in JOBS["nightly", "long"]["strategy"]["matrix"]["include"]:
        recipe = re.search(rf"^{entry['target']}:.*\n(?:\t.*\n)+", makefile, re.MULTILINE)
        assert recipe
        variable = entry["settings"].partition("=")[0]
        assert variable in recipe[0], entry


# -- the release ---------------------------------------------------------------------------------------


def test_every_image_is_published_for_every_checked_architecture() -> None:
    stages = re.findall(
        r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    matrix = JOBS["release", "build"]["strategy"]["matrix"]
    checked = JOBS["containers", "check"]["strategy"]["matrix"]["include"]
    published = JOBS["release", "publish"]["strategy"]["matrix"]["include"]
    assert set(matrix["target"]) <= set(stages)
    assert matrix["target"] == [entry["target"] for entry in published]
    assert matrix["architecture"] == [entry["architecture"] for entry in checked] == ["amd64", "arm64"]
    suffixes = {entry["target"]: entry["suffix"] for entry in published}
    assert suffixes == {"vigia": "", "slim": "-slim", "backup": "-backup"}
    for entry in checked:
        assert entry["runner"].endswith("-arm") == (entry["architecture"] == "arm64")


def test_an_image_is_published_after_its_check_with_sbom_and_provenance() -> None:
    assert set(JOBS["release", "build"]["needs"]) == {"version", "containers"}
    assert "build" in JOBS["release", "publish"]["needs"]
    assert JOBS["release", "containers"]["with"] == {"long": True}
    [build] = [
        step["with"] for step in steps(of=("release", "build")) if "build-push" in step.get("uses", "")
    ]
    assert (build["sbom"], build["provenance"]) == (True, "mode=max")
    assert "push-by-digest=true" in build["outputs"]
    assert any("attest-build-provenance" in step.get("uses", "") for step in steps(of=("release", "publish")))


def test_the_release_compares_the_tag_with_files_that_have_this_form() -> None:
    code = (ROOT / "core" / "version.py").read_text(encoding="utf-8")
    assert f'VERSION = "{VERSION}"' in code.splitlines()
    heading = rf"^## \[{re.escape(VERSION)}\] - (unreleased|\d{{4}}-\d{{2}}-\d{{2}})$"
    assert re.search(heading, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
