"""The published images of the containers: one reference each, with a digest, and a bot that renews it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
RENOVATE: dict[str, Any] = json.loads((ROOT / "renovate.json").read_text(encoding="utf-8"))
OURS = {"VIGIA_IMAGE": "vigia", "VIGIA_BACKUP_IMAGE": "vigia-backup"}
PUBLISHED = {
    "PYTHON_IMAGE": "python",
    "POSTGRES_IMAGE": "postgres",
    "VALKEY_IMAGE": "valkey/valkey",
    "CADDY_IMAGE": "caddy",
    "PROMETHEUS_IMAGE": "prom/prometheus",
    "ALERTMANAGER_IMAGE": "prom/alertmanager",
    "GRAFANA_IMAGE": "grafana/grafana",
}
"""Image of each variable."""


def references() -> list[tuple[str, str]]:
    """Returns (variable, default) of every image in the compose file and the Dockerfile."""
    found = [service["image"] for service in COMPOSE["services"].values()]
    matches = [re.fullmatch(r"\$\{(\w+):-(\S+)\}", image) for image in found]
    assert all(matches), found
    pairs = {(match[1], match[2]) for match in matches if match}
    return sorted(pairs | set(re.findall(r"^ARG (\w+_IMAGE)=(\S+)$", DOCKERFILE, re.MULTILINE)))


def test_every_published_image_has_one_reference_with_a_digest() -> None:
    defaults = dict(references())
    assert len(defaults) == len(references()), "a variable has two defaults"
    assert {name: ref.partition(":")[0] for name, ref in defaults.items()} == PUBLISHED | OURS
    for name, ref in defaults.items():
        tag, _, digest = ref.partition(":")[2].partition("@")
        assert re.match(r"v?\d+\.?\d*", tag), ref
        assert bool(re.fullmatch(r"sha256:[0-9a-f]{64}", digest)) == (name in PUBLISHED), ref
    # A value in the compose file would hide the Dockerfile's, which the bot renews.
    for service in COMPOSE["services"].values():
        assert service.get("build", {}).get("args", {}).get("PYTHON_IMAGE") is None


def test_every_stage_starts_from_the_pinned_python() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    assert bases - stages == {"${PYTHON_IMAGE}"}


def test_renovate_renews_every_published_image_and_none_of_ours() -> None:
    assert {"dockerfile", "docker-compose", "github-actions"} <= set(RENOVATE["enabledManagers"])
    assert "docker:pinDigests" in RENOVATE["extends"]
    off = [rule for rule in RENOVATE["packageRules"] if rule.get("enabled") is False]
    names = {
        name for rule in off if "matchUpdateTypes" not in rule for name in rule.get("matchPackageNames", ())
    }
    assert names == set(OURS.values())
    for rule in off:
        held_back = set(rule.get("matchPackageNames", ())) & set(PUBLISHED.values())
        assert not held_back or {"digest", "patch"}.isdisjoint(rule["matchUpdateTypes"])
        assert "matchPackageNames" in rule or rule["matchManagers"] == ["pip_requirements"]


def test_the_engine_without_a_registry_has_a_stand_in_for_every_published_image() -> None:
    script = (ROOT / ".ci" / "containers").read_text(encoding="utf-8")
    assert set(re.findall(r"\b([A-Z]+_IMAGE)=\S", script)) == set(PUBLISHED)


def test_no_container_sends_telemetry_of_onnxruntime() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    bases, silent = {}, set()
    for stage in stages:
        head, _, body = stage.partition("\n")
        base, _, name = head.partition(" AS ")
        bases[name or "(default)"] = base
        if re.search(r"^ENV (?:.*\\\n)*?.*\bORT_DISABLE_TELEMETRY=1", body, re.MULTILINE):
            silent.add(name)

    def is_silent(stage: str) -> bool:
        return stage in silent or (stage in bases and is_silent(bases[stage]))

    for name in ("vigia", "slim", "backup", "(default)"):
        assert is_silent(name), name
    for name, service in COMPOSE["services"].items():
        assert "ORT_DISABLE_TELEMETRY" not in (service.get("environment") or {}), name
        target = service.get("build", {}).get("target", "(default)")
        assert is_silent(target), name
