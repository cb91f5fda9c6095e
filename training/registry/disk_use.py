"""The bytes of each model in the store, from the database's record of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.db import connection

_SIZES: Final = """
    WITH stored AS (
        SELECT version.registered_model_id, 'artifacts' AS kind, part.sha256, part.size
        FROM training_modelversion version
        LEFT JOIN training_prunedartifact pruned ON pruned.version_id = version.id
        CROSS JOIN LATERAL (
            VALUES
                (version.artifact_sha256, version.artifact_size),
                (version.compiled_sha256, version.compiled_size)
        ) AS part (sha256, size)
        WHERE pruned.id IS NULL AND part.sha256 <> ''
        UNION
        SELECT registered_model_id, 'datasets', sha256, size FROM training_dataset WHERE deleted_at IS NULL
    )
    SELECT model.id, model.name,
        coalesce(sum(size) FILTER (WHERE kind = 'artifacts'), 0),
        coalesce(sum(size) FILTER (WHERE kind = 'datasets'), 0)
    FROM training_registeredmodel model LEFT JOIN stored ON stored.registered_model_id = model.id
    GROUP BY model.id, model.name ORDER BY model.name
"""


@dataclass(frozen=True, slots=True)
class DiskUse:
    """Bytes of one model in the store. Equal bytes of one model count once; two models both count theirs.

    artifacts : pipelines and compiled graphs of the versions that were not pruned. datasets : training rows.
    """

    model_id: int
    model: str
    artifacts: int
    datasets: int

    @property
    def total(self) -> int:
        return self.artifacts + self.datasets


def by_model() -> list[DiskUse]:
    """Returns the bytes of every model, in the order of their names."""
    with connection.cursor() as cursor:
        cursor.execute(_SIZES)
        return [DiskUse(pk, name, int(artifacts), int(datasets)) for pk, name, artifacts, datasets in cursor]


def of(model_id: int) -> DiskUse:
    """Returns the bytes of one model."""
    return next(use for use in by_model() if use.model_id == model_id)
