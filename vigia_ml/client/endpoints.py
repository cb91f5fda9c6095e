"""Flows of one request each."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from vigia_ml.client.core import API, CSV, JSON, Core, Time, at, encoded, time_text
from vigia_ml.client.flow import Flow, Gather, Work
from vigia_ml.client.frames import Row, as_path, is_frame, key_text
from vigia_ml.client.results import (
    Activation,
    DriftReview,
    LogPage,
    Model,
    OutcomesRecorded,
    PredictionDetail,
    Quality,
    Recommendation,
    VersionFields,
    VersionSummary,
)
from vigia_ml.errors import VigiaError
from vigia_ml.schema.csv_dialect import Table, Told, Unreadable

if TYPE_CHECKING:
    import pandas as pd

V = TypeVar("V", bound=VersionFields)
OUTCOMES_BATCH = 5_000
_OUTCOME_FIELDS = frozenset(("prediction", "key", "actual", "observed_at"))


def models(core: Core) -> Flow[list[Model]]:
    """Returns the models for which the key has a right."""
    return (yield from core.get(at("models"), list[Model]))


def model(core: Core, name: str) -> Flow[Model]:
    """Returns one model: schema, example, active version and policy."""
    return (yield from core.get(at("models", name), Model))


def versions(core: Core, model: str, *, before: int | None = None) -> Flow[list[VersionSummary]]:
    """Returns the newest versions of a model (at most a page of them; `before`: with a smaller number)."""
    return (yield from core.get(at("models", model, "versions"), list[VersionSummary], {"before": before}))


def version(core: Core, model: str, number: int, kind: type[V]) -> Flow[V]:
    """Returns one version."""
    return (yield from core.get(at("models", model, "versions", number), kind))


def active(core: Core, model: str, at_time: Time | None = None) -> Flow[Activation]:
    """Returns the activation in force now, or at a time such as the `at` of a row of the log."""
    return (yield from core.get(at("models", model, "active"), Activation, {"at": time_text(at_time)}))


def activate(
    core: Core, model: str, version: int, *, reason: str, override: bool = False
) -> Flow[Activation]:
    """Makes a version the active one.

    Parameters
    ----------
    reason : stored in the audit trail. override : activate although the version did not pass its gate.

    Raises
    ------
    GateNotPassed : `details` holds the failed checks.
    Conflict : the version is active already, or cannot be activated.
    """
    body = encoded({"reason": reason} | ({"override": True} if override else {}))
    return (yield from core.post(at("models", model, "versions", version, "activate"), Activation, body))


def rollback(core: Core, model: str, *, reason: str) -> Flow[Activation]:
    """Activates the version that was active before the current one."""
    return (yield from core.post(at("models", model, "rollback"), Activation, encoded({"reason": reason})))


def prediction(core: Core, id: str) -> Flow[PredictionDetail]:
    """Returns one logged prediction with its outcome and its lineage."""
    return (yield from core.get(at("predictions", id), PredictionDetail))


def log_page(core: Core, model: str, params: Mapping[str, object]) -> Flow[LogPage]:
    """Returns one page of the log."""
    return (yield from core.get(at("models", model, "predictions"), LogPage, params))


def quality(
    core: Core,
    model: str,
    *,
    since: Time | None = None,
    until: Time | None = None,
    version: int | None = None,
    step: Literal["hour", "day"] | None = None,
) -> Flow[Quality]:
    """Returns the realised quality of a model's versions, by time of the predictions (default: 30 days)."""
    params = {"since": time_text(since), "until": time_text(until), "version": version, "step": step}
    return (yield from core.get(at("models", model, "quality"), Quality, params))


def drift(
    core: Core,
    model: str,
    *,
    since: Time | None = None,
    until: Time | None = None,
    version: int | None = None,
) -> Flow[DriftReview]:
    """Returns the latest drift review; with a window or a version, makes a new one.

    Raises
    ------
    NotFound : there is no review yet: pass `since`.
    """
    params = {"since": time_text(since), "until": time_text(until), "version": version}
    return (yield from core.get(at("models", model, "drift"), DriftReview, params))


def outcomes(
    core: Core,
    model: str,
    rows: pd.DataFrame | Sequence[Row] | str | Path,
    *,
    idempotency_key: str | None = None,
) -> Flow[OutcomesRecorded]:
    """Records outcomes and returns their counts.

    Parameters
    ----------
    rows : dicts with ``actual`` and either ``prediction`` (an id) or ``key``, and ``observed_at`` if known;
        a frame with these columns; or the path of a CSV file with them.

    More than 5,000 rows are sent in several requests; each is recorded whole or not at all, and repeating a
    request is harmless.
    """
    bodies: list[bytes] = yield Work(partial(_outcome_bodies, rows))
    path, kind = at("models", model, "outcomes"), CSV if as_path(rows) else JSON
    counts: list[OutcomesRecorded] = yield Gather(
        (
            core.post(
                path,
                OutcomesRecorded,
                body,
                idempotency_key=f"{idempotency_key}-{number}" if idempotency_key else None,
                content_type=kind,
            )
            for number, body in enumerate(bodies)
        ),
        1,
    )
    return _added(counts)


def _outcome_bodies(rows: Any) -> list[bytes]:
    path = as_path(rows)
    if path is not None:
        return list(_csv_pieces(path))
    given = _outcome_rows(rows) if is_frame(rows) else list(rows)
    starts = range(0, len(given), OUTCOMES_BATCH) or range(1)
    return [encoded(given[start : start + OUTCOMES_BATCH]) for start in starts]


def _csv_pieces(path: Path) -> Iterator[bytes]:
    """Yields the rows of a CSV file in CSV texts of their own, whose cells are those of the file."""
    with path.open("rb") as stream:
        try:
            table = Table(stream, Told(), knows=_OUTCOME_FIELDS.__contains__, skip_blank_rows=False)
            rows = table.rows()
            piece = list(islice(rows, OUTCOMES_BATCH))
            while True:
                text = io.StringIO()
                writer = csv.writer(text)
                writer.writerow(table.header)
                writer.writerows(cells for _, cells in piece)
                yield text.getvalue().encode()
                if not (piece := list(islice(rows, OUTCOMES_BATCH))):
                    return
        except Unreadable as error:
            raise VigiaError(f"{path}: {error.message}", code=error.code) from None


def _outcome_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for record in frame.to_dict("records"):
        row = {str(name): value for name, value in record.items() if not _is_missing(value, pd)}
        if "observed_at" in row and hasattr(row["observed_at"], "to_pydatetime"):
            row["observed_at"] = time_text(row["observed_at"].to_pydatetime())
        if "key" in row:
            row["key"] = key_text(row["key"])
        if "prediction" in row:
            row["prediction"] = str(row["prediction"])
        rows.append(row)
    return rows


def _is_missing(value: object, pd: Any) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _added(counts: Sequence[OutcomesRecorded]) -> OutcomesRecorded:
    """Returns the sums; the rows of warnings are positions among all rows."""
    warnings = [
        warning | {"row": warning["row"] + place * OUTCOMES_BATCH} if "row" in warning else warning
        for place, each in enumerate(counts)
        for warning in each.warnings
    ]
    names = ("received", "recorded", "corrected", "repeated", "waiting", "ambiguous")
    sums = {name: sum(getattr(each, name) for each in counts) for name in names}
    return OutcomesRecorded(model=counts[0].model, warnings=warnings, **sums)


def recommend(
    core: Core,
    /,
    *,
    title: str | None = None,
    movie_id: int | None = None,
    text: str | None = None,
    liked: Sequence[int] | None = None,
    disliked: Sequence[int] | None = None,
    user: str | None = None,
    top_n: int | None = None,
    genres: Sequence[str] | None = None,
    version: int | None = None,
    **filters: Any,
) -> Flow[Recommendation]:
    """Recommends movies similar to one movie (by `title` or `movie_id`), to several (`liked`), to a `text`,
    or to what a `user` watched. Every answer is in the log under its id.

    Parameters
    ----------
    top_n : number of movies at most. genres : only movies of one of them. version : number of the version.
    filters : other fields of the API's request, such as ``year_from`` or ``_key``.
    """
    question = {
        "title": title, "movie_id": movie_id, "text": text, "liked": liked, "disliked": disliked,
        "user": user, "top_n": top_n, "genres": genres, **filters,
    }  # fmt: skip
    body = encoded({name: value for name, value in question.items() if value is not None})
    return (yield from core.post(f"{API}/recommendations/", Recommendation, body, {"version": version}))
