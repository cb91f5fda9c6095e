"""Requests for batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import User

from predictions.models import Batch
from training import artifacts, providers
from training.access import permissions
from training.models import ModelVersion


@dataclass(frozen=True, slots=True)
class Source:
    """The file of a batch: an upload in the store, or a file of a declared location.

    folder : the batch's own place in the store, ``batches/`` and a UUIDv7. Other fields: see `Batch`.
    """

    folder: str
    format: str
    source_name: str = ""
    location: str = ""
    path: str = ""
    fingerprint: Any = None
    source_size: int = 0
    source_sha256: str = ""
    gzip: bool = False
    dialect: dict[str, Any] = field(default_factory=dict)


def request(
    version: ModelVersion, source: Source, *, by: User | None, token_key: str = "", on_invalid: str = "report"
) -> Batch:
    """Creates a queued batch. The caller enqueues it after the commit (`training.queueing.enqueue`).

    Parameters
    ----------
    by : holder of the log rows; None for a command. token_key : `AuthToken.token_key` of the client key that
        requests the batch; if that key is revoked, the batch ends. Empty for a session or a command.
    on_invalid : see `Batch.OnInvalid`.

    Raises
    ------
    Forbidden : `by` may not predict with the model. UnsupportedForModel : the model does not answer rows.
    Archived, ArtifactPruned : the version cannot answer.
    """
    model = version.registered_model
    providers.require_rows(model, "batches")
    if by is not None:
        permissions.require(by, "predict", model)
    artifacts.check_kept(version)
    return Batch.objects.create(
        registered_model=model,
        version=version,
        requested_by=by,
        token_key=token_key,
        on_invalid=on_invalid,
        stage="queued",
        **{name: getattr(source, name) for name in Source.__slots__},
    )
