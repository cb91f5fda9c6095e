"""The prediction log, outcomes, rollups, reviews, replays and shadow answers.

The log's table is partitioned by month on its id, a UUIDv7 that carries the time; migration 0001 creates it
in SQL, with the triggers that keep it append-only. Its indexes:

- primary key ``id``: one row, or any range of time, because ids order by time.
- ``(registered_model_id, id)``: a model's log, newest first, in pages.
- ``(version_id, id)``: the same for one version; also finds rows that refer to a version.
- ``(registered_model_id, key, id) WHERE key IS NOT NULL``: the rows of a client key.
"""

from predictions.models.batches import Batch, BatchChunk, BatchShare
from predictions.models.exports import LogExport
from predictions.models.locks import Lock
from predictions.models.log import Erasure, JSONText, Prediction, RemovedMonth, decoded
from predictions.models.outcomes import Outcome
from predictions.models.replays_and_shadows import Replay, ShadowAnswer, ShadowTally
from predictions.models.reviews import DriftFinding, DriftReview, Verdict
from predictions.models.rollups import AnswerTime, ChangedHour, QualityHour, RolledHour, Rollup

__all__ = [
    "AnswerTime",
    "Batch",
    "BatchChunk",
    "BatchShare",
    "ChangedHour",
    "DriftFinding",
    "DriftReview",
    "Erasure",
    "JSONText",
    "Lock",
    "LogExport",
    "Outcome",
    "Prediction",
    "QualityHour",
    "RemovedMonth",
    "Replay",
    "RolledHour",
    "Rollup",
    "ShadowAnswer",
    "ShadowTally",
    "Verdict",
    "decoded",
]
