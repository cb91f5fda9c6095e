"""What the log still refers to. A row counts while its partition is there: retention drops partitions."""

from __future__ import annotations

from predictions.models import Prediction
from training.models import ModelVersion


def is_in_the_log(version: ModelVersion) -> bool:
    """Whether any logged prediction was made by `version`; one look into the index of each partition."""
    return Prediction.objects.filter(version_id=version.pk).exists()
