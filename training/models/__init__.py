"""The registry: registered models, their datasets, training runs, versions and activations.

The database enforces the rules: one active version per model, one version per run, unique version numbers, an
append-only activation log.
"""

from training.models.activations import Activation, Rollout
from training.models.archives import Archival, StoredUpload
from training.models.heartbeats import Heartbeat
from training.models.idempotency import IdempotencyKey
from training.models.jobs import Comparison, Job, TrainingRun
from training.models.registry import RIGHTS, Dataset, GroupScope, Origin, RegisteredModel
from training.models.versions import (
    LARGE_COLUMNS,
    ModelVersion,
    PrunedArtifact,
    ReferenceProfile,
    UnusableArtifact,
    serving_versions,
    sharing_versions,
    small_versions,
)

__all__ = [
    "LARGE_COLUMNS",
    "RIGHTS",
    "Activation",
    "Archival",
    "Comparison",
    "Dataset",
    "GroupScope",
    "Heartbeat",
    "IdempotencyKey",
    "Job",
    "ModelVersion",
    "Origin",
    "PrunedArtifact",
    "ReferenceProfile",
    "RegisteredModel",
    "Rollout",
    "StoredUpload",
    "TrainingRun",
    "UnusableArtifact",
    "serving_versions",
    "sharing_versions",
    "small_versions",
]
