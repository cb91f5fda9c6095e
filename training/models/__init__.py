"""The registry: registered models, their datasets, training runs, versions and activations.

The database guards the rules: one active version per model, one version per run, numbers without a
repeat, an activation log that cannot be rewritten.
"""

from training.models.idempotency import IdempotencyKey
from training.models.jobs import Comparison, Job, TrainingRun
from training.models.registry import RIGHTS, Dataset, GroupScope, RegisteredModel
from training.models.switching import Activation, Rollout
from training.models.versions import ModelVersion, PrunedArtifact, ReferenceProfile

__all__ = [
    "RIGHTS",
    "Activation",
    "Comparison",
    "Dataset",
    "GroupScope",
    "IdempotencyKey",
    "Job",
    "ModelVersion",
    "PrunedArtifact",
    "ReferenceProfile",
    "RegisteredModel",
    "Rollout",
    "TrainingRun",
]
