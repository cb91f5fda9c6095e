"""The prediction log, and the keys that make retrying safe.

The log's table is partitioned by month on its id, a UUIDv7 that carries the time; migration 0001 makes it
in SQL, with the triggers that keep it append-only. Its indexes:

- primary key ``id``: one row; and, ids being time, any range of time.
- ``(registered_model_id, id)``: a model's log, newest first, in pages.
- ``(version_id, id)``: the same for one version; also counts what still refers to a version.
- ``(registered_model_id, key, id) WHERE key IS NOT NULL``: the rows of a client's own reference.
"""

from predictions.models.log import JSONText, Prediction, RemovedMonth
from predictions.models.outcomes import Outcome
from predictions.models.replays_and_shadows import Replay, ShadowAnswer, ShadowTally
from predictions.models.reviews import DriftFinding, DriftReview, Verdict
from predictions.models.rollups import AnswerTime, ChangedHour, QualityHour, RolledHour, Rollup

__all__ = [
    "AnswerTime",
    "ChangedHour",
    "DriftFinding",
    "DriftReview",
    "JSONText",
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
]
