"""The kinds of events of the registry, its jobs and its keys."""

from __future__ import annotations

from typing import Final

from core.events.kinds import EventKind

KINDS: Final = (
    EventKind(
        "version.activated",
        "Version activated",
        "A version became the active one, by a user or by the model's policy. Data: version, previous, "
        "actor, reason, by_policy, overridden (the gate's verdict).",
    ),
    EventKind(
        "version.rolled_back",
        "Version rolled back",
        "An earlier version became the active one again. Data: version, previous, actor, reason, by_policy, "
        "overridden.",
    ),
    EventKind(
        "gate.refused",
        "Gate refused a version",
        "A training run ended with a version that did not pass its gate. Data: version, run, checks (name, "
        "message).",
    ),
    EventKind(
        "run.ended",
        "Training run ended",
        "A training run succeeded, failed or was cancelled. Data: run, version, gate_passed, activated, "
        "status, error, requested_by, queued_at.",
    ),
    EventKind(
        "artifact.unusable",
        "Artifact unusable",
        "A web process cannot load a version: its bytes are missing or changed, or this code cannot read "
        "them. The next such event of the version comes only after it was usable again. Data: version, "
        "active, reason.",
    ),
    EventKind(
        "key.created",
        "Key created",
        "A client key was issued. Data: client, key (its first characters), expires.",
    ),
    EventKind(
        "key.revoked",
        "Key revoked",
        "A client key was removed: alone, together with its client, or after its expiry. Data: client, key "
        "(its first characters), expired.",
    ),
)
