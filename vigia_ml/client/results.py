"""The service's answers as frozen records. A field that this version does not know is left out."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from vigia_ml.client.async_client import AsyncClient
    from vigia_ml.client.client import Client

Json = Any
"""A value of JSON whose shape depends on the model."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records; `to_dict` returns one as JSON-ready values."""

    def to_dict(self) -> dict[str, Json]:
        plain: dict[str, Json] = msgspec.to_builtins(self)
        return plain


class RowWarning(Record, frozen=True, kw_only=True):
    """A value outside the training data: ``out_of_range`` or ``unseen_level``."""

    field: str
    code: str


class Answer(Record, frozen=True, kw_only=True):
    """The answer to one row. `probability` and `probabilities` are None for a regression.

    version : number of the version that answered.
    """

    id: str
    prediction: Json
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    warnings: list[RowWarning] = []
    version: int | None = None


class Answers(Record, frozen=True, kw_only=True):
    """The answers to one request, in its order."""

    model: str
    version: int
    predictions: list[Answer]


class RowError(Record, frozen=True, kw_only=True):
    """A fault of one row that was not answered. row : its position among the rows given, from 0."""

    row: int
    field: str | None = None
    code: str = ""
    message: str = ""
    value: Json = None
    allowed: list[Json] | None = None


class LoggedPrediction(Record, frozen=True, kw_only=True):
    """One row of the log."""

    id: str
    at: dt.datetime
    model: str
    version: int
    key: str | None = None
    inputs: dict[str, Json] = {}
    prediction: Json = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    warnings: list[RowWarning] = []
    request_id: str = ""


class Outcome(Record, frozen=True, kw_only=True):
    """The current outcome of a prediction."""

    actual: Json
    observed_at: dt.datetime
    corrections: int = 0
    history: list[dict[str, Json]] = []


class PredictionDetail(LoggedPrediction, frozen=True, kw_only=True):
    """One row of the log with its outcome and its lineage. recommendations : of a recommender."""

    client: str | None = None
    outcome: Outcome | None = None
    lineage: dict[str, Json] = {}


class LogPage(Record, frozen=True, kw_only=True):
    """One page of the log, newest first. next : address of the next page, or None."""

    model: str
    predictions: list[LoggedPrediction]
    next: str | None = None


class OutcomesRecorded(Record, frozen=True, kw_only=True):
    """Counts of the outcomes received."""

    model: str
    received: int
    recorded: int = 0
    corrected: int = 0
    repeated: int = 0
    waiting: int = 0
    ambiguous: int = 0
    warnings: list[dict[str, Json]] = []


class Model(Record, frozen=True, kw_only=True):
    """A registered model."""

    name: str
    title: str = ""
    description: str = ""
    task: str | None = None
    policy: str = ""
    active_version: int | None = None
    asked_at: str = ""
    example: Json = None
    schema: dict[str, Json] | None = None
    links: dict[str, str] = {}


class Parity(Record, frozen=True, kw_only=True):
    """The difference between the compiled engine's answers and the pipeline's on the same rows."""

    passed: bool
    tolerance: float | None = None
    measure: str = ""
    worst: float | None = None
    where: str = ""
    rows: int = 0
    refused: int = 0
    seconds: float = 0.0


class VersionSummary(Record, frozen=True, kw_only=True):
    """A version in a list of versions."""

    number: int = msgspec.field(name="version")
    status: str
    metrics: dict[str, float | None] | None = None
    engine: str = ""
    origin: str = "trained"
    created_at: dt.datetime | None = None
    links: dict[str, str] = {}


class Activation(Record, frozen=True, kw_only=True):
    """One switch of the active version."""

    model: str
    version: int
    previous: int | None = None
    kind: str = ""
    actor: str | None = None
    reason: str = ""
    overridden: bool = False
    gate: Json = None
    at: dt.datetime | None = None


class Job(Record, frozen=True, kw_only=True):
    """A job of the service: `status` is queued, running, succeeded, failed or cancelled."""

    id: int
    status: str
    model: str
    stage: str = ""
    percent: int = 0
    error: str = ""

    @property
    def is_finished(self) -> bool:
        return self.status in ("succeeded", "failed", "cancelled")


class Run(Job, frozen=True, kw_only=True):
    """A training run, or the check of a push. version : number of its version."""

    origin: str = "trained"
    mode: str = ""
    source: Json = None
    repeat: bool = False
    search: Json = None
    version: int | None = None
    activated: bool = False
    log_tail: str = ""
    dataset: dict[str, Json] | None = None
    metrics: dict[str, float | None] | None = None
    baseline: dict[str, float | None] | None = None
    gate: dict[str, Json] | None = None
    split: str | None = None
    duplicates_dropped: int | None = None
    notes: list[dict[str, Json]] = []
    attempts: int = 0
    queued_at: dt.datetime | None = None
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    links: dict[str, str] = {}

    @property
    def passed_gate(self) -> bool | None:
        """Whether the version passed its gate; None without a version."""
        return bool(self.gate.get("passed")) if self.gate else None


class Comparison(Job, frozen=True, kw_only=True):
    """A comparison of two versions on the later one's hold-out."""

    before: int
    after: int
    result: dict[str, Json] | None = None


class Replay(Job, frozen=True, kw_only=True):
    """A replay of a window of the log with one version."""

    version: int
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    rows: int | None = None
    result: dict[str, Json] | None = None


class ExportedFile(Record, frozen=True, kw_only=True):
    """One file of an export. rows : None for a manifest or a mark."""

    path: str
    bytes: int
    sha256: str
    rows: int | None = None


class LogExport(Job, frozen=True, kw_only=True):
    """An export of a window of the log. kept_until : time when the service removes the files."""

    since: dt.datetime
    until: dt.datetime
    rows: int = 0
    bytes: int = 0
    files: list[ExportedFile] = []
    kept_until: dt.datetime | None = None
    removed_at: dt.datetime | None = None


class VersionFields(Record, frozen=True, kw_only=True, dict=True):
    """One version: metrics, gate, lineage, schema and engine. run : the run of a push, else None."""

    model: str
    number: int = msgspec.field(name="version")
    status: str
    origin: str = "trained"
    classes: list[Json] | None = None
    metrics: dict[str, float | None] = {}
    baseline: dict[str, float | None] | None = None
    gate: dict[str, Json] | None = None
    evaluation: dict[str, Json] | None = None
    threshold: float | None = None
    train_rows: int | None = None
    holdout_rows: int | None = None
    split: str | None = None
    duplicates_dropped: int | None = None
    notes: list[dict[str, Json]] = []
    engine: str = ""
    engine_reason: str = ""
    parity: Parity | None = None
    lineage: dict[str, Json] = {}
    schema: dict[str, Json] | None = None
    created_at: dt.datetime | None = None
    links: dict[str, str] = {}
    run: Run | None = None

    @property
    def url(self) -> str:
        """The version's address in the API."""
        return self.links.get("version", "")


class Version(VersionFields, frozen=True, kw_only=True):
    """One version, which `Client` returns."""

    def activate(self, reason: str, *, override: bool = False) -> Activation:
        """Makes this version the active one; see `Client.activate`."""
        client: Client = self.__dict__["client"]
        return client.activate(self.model, self.number, reason=reason, override=override)


class AsyncVersion(VersionFields, frozen=True, kw_only=True):
    """One version, which `AsyncClient` returns."""

    async def activate(self, reason: str, *, override: bool = False) -> Activation:
        """Makes this version the active one; see `AsyncClient.activate`."""
        client: AsyncClient = self.__dict__["client"]
        return await client.activate(self.model, self.number, reason=reason, override=override)


class Evaluation(Record, frozen=True, kw_only=True):
    """Metrics of a version on labelled rows."""

    model: str
    version: int
    rows: int
    metrics: dict[str, float | None]
    intervals: dict[str, list[float] | None] = {}
    confidence: float | None = None
    baseline: dict[str, float | None] | None = None
    confusion: dict[str, Json] | None = None
    notes: list[str] = []


class VersionQuality(Record, frozen=True, kw_only=True):
    """The realised quality of one version in a window."""

    version: int
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    answered: int = 0
    labelled: int = 0
    unusable: int = 0
    coverage: float | None = None
    median_delay_seconds: float | None = None
    too_few: bool = False
    metrics: dict[str, dict[str, Json]] = {}
    holdout: dict[str, float | None] = {}
    calibration: dict[str, Json] | None = None
    series: list[dict[str, Json]] | None = None


class Quality(Record, frozen=True, kw_only=True):
    """The realised quality of a model's versions in a window of whole hours."""

    model: str
    since: dt.datetime
    until: dt.datetime
    minimum_outcomes: int = 0
    pending_hours: int = 0
    versions: list[VersionQuality] = []


class DriftReview(Record, frozen=True, kw_only=True):
    """A drift review: the verdict, and a finding for each column."""

    id: int
    model: str
    version: int
    since: dt.datetime
    until: dt.datetime
    rows: int
    verdict: str
    reason: str = ""
    drifting: list[str] = []
    created_at: dt.datetime | None = None
    quality: Json = None
    expected: Json = None
    findings: list[dict[str, Json]] = []


class RecommendedMovie(Record, frozen=True, kw_only=True):
    movie_id: int
    title: str
    year: int | None = None
    genres: list[str] = []
    score: float = 0.0
    because: list[dict[str, Json]] = []


class Recommendation(Record, frozen=True, kw_only=True):
    """Recommended movies, best first; `reason` says why there are none."""

    id: str
    model: str
    version: int
    basis: str = ""
    matched: dict[str, Json] | None = None
    recommendations: list[RecommendedMovie] = []
    reason: str = ""
