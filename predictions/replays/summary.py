"""What a replay finds out: answers as they were logged beside a candidate's. No Django here.

`predictions.replays.accumulator` adds it up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from predictions.replays.sketches import Shift

WORST: Final = 50
UNUSABLE: Final = "logged_answer"


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one version in the window.

    rows : logged by it; unreadable : of them, not answered by the candidate.
    changed : share of the others whose label changed, of a regression whose value changed by more than one
        per cent. mean_before, mean_after : of probability or value.
    """

    version: int
    rows: int
    unreadable: int
    changed: float | None
    mean_before: float | None
    mean_after: float | None


@dataclass(frozen=True, slots=True)
class Labelled:
    """How good both were where the truth is known.

    rows : answered rows with an outcome; coverage : their share of all answered rows.
    before, after : metrics of the logged answers and of the candidate's, see `vigia_ml.evaluation.metrics`;
        empty without rows, and without those metrics that are not defined on these rows. Of more than two
        classes the log holds the probability of one alone, so only metrics of decisions are there.
    """

    rows: int
    coverage: float
    before: dict[str, float]
    after: dict[str, float]


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a replay.

    task : binary, multiclass or regression.
    rows : in the window. answered : by the candidate as well.
    unreadable : reason -> rows it could not answer; a reason is the code of a fault and the column, or
        ``prediction_failed``, ``no_finite_answer``, ``logged_answer``.
    versions : by the version that logged them.
    changed, changed_share : rows whose label changed; of a regression None.
    beyond : share -> share of rows whose value changed by more than that; of a classification empty.
    change_quantiles : of the relative change |after - before| / |before|, known to a hundredth of itself.
    mean_before, mean_after : of the probability (of more than two classes: of the answered one) or value.
    shift : of the distribution of the answers; `of` says of what: probability, value or label.
    transitions : {before, after, rows} of labels.
    worst : the `WORST` rows with the largest difference: {id, version, inputs, before, after, difference},
        where before and after are {prediction, probability}. Of more than two classes the difference is
        that of the probability of the label that was logged.
    outcomes : see `Labelled`.
    """

    task: str
    rows: int
    answered: int
    unreadable: dict[str, int]
    versions: list[Part]
    changed: int | None
    changed_share: float | None
    beyond: dict[str, float]
    change_quantiles: dict[str, float | None]
    mean_before: float | None
    mean_after: float | None
    of: str
    shift: Shift
    transitions: list[dict[str, Any]]
    worst: list[dict[str, Any]]
    outcomes: Labelled

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Logged:
    """n rows of one version as the log has them.

    ids : as text. names : of the inputs. cells : their values, n rows of them.
    predictions : numbers or labels. probabilities : None where there are none. actuals : id -> outcome.
    """

    version: int
    ids: Sequence[str]
    names: Sequence[str]
    cells: Sequence[Sequence[Any]]
    predictions: Sequence[Any]
    probabilities: Sequence[float | None]
    actuals: Mapping[str, Any]
