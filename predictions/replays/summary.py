"""The result of a replay: logged answers compared with a candidate's. No Django here.

`predictions.replays.accumulator` computes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from predictions.replays.distributions import Shift

WORST: Final = 50
UNUSABLE: Final = "logged_answer"


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one version in the window.

    rows : logged rows. unreadable : rows that the candidate did not answer.
    changed : share of the answered rows whose label changed, or for a regression whose value changed by more
        than one per cent. mean_before, mean_after : mean probability or value.
    """

    version: int
    rows: int
    unreadable: int
    changed: float | None
    mean_before: float | None
    mean_after: float | None


@dataclass(frozen=True, slots=True)
class Labelled:
    """The quality of the logged and the candidate's answers on labelled rows.

    rows : answered rows with an outcome. coverage : their share of all answered rows.
    before, after : metrics of the logged and of the candidate's answers, see `vigia_ml.evaluation.sums`;
        empty without rows, and without metrics that these rows do not define. The area under the ROC curve is
        as fine as the bins of `distributions`. For more than two classes roc_auc, log_loss and brier are of
        the rows whose log has the probability of every class, on both sides.
    with_probabilities : number of these rows; None for two classes and for a regression.
    """

    rows: int
    coverage: float
    before: dict[str, float]
    after: dict[str, float]
    with_probabilities: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a replay.

    task : binary, multiclass or regression.
    rows : rows of the window. answered : rows that the candidate answered too.
    unreadable : reason -> rows that the candidate could not answer; a reason is a fault's code and column, or
        ``prediction_failed``, ``no_finite_answer``, ``logged_answer``.
    versions : the rows of each version that logged them.
    changed, changed_share : rows whose label changed; None for a regression.
    beyond : share -> share of rows whose value changed by more than this share; empty for a classification.
    change_quantiles : quantiles of the relative change |after - before| / |before|, to one per cent.
    mean_before, mean_after : mean probability (for more than two classes: of the answer) or value.
    shift : shift of the distribution of the answers. of : the quantity of `shift`: probability, value or
        label.
    transitions : {before, after, rows} of labels.
    worst : the `WORST` rows with the largest difference: {id, version, inputs, before, after, difference},
        where before and after are {prediction, probability}. For more than two classes the difference is
        that of the logged label's probability.
    outcomes : see `Labelled`.
    classes : for more than two classes, the differences of each class's probability, the largest first; see
        `predictions.replays.classes.ClassShift`. with_probabilities : answered rows of which they are: those
        whose log has the probability of every class; None for other tasks.
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
    classes: list[dict[str, Any]] = field(default_factory=list)
    with_probabilities: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Logged:
    """n logged rows of one version.

    ids : ids as text. names : names of the inputs. cells : n rows of input values.
    predictions : numbers or labels. probabilities : None for rows without one. actuals : id -> outcome.
    by_class : for more than two classes, the probabilities in the order of `classes`; None for rows without.
    """

    version: int
    ids: Sequence[str]
    names: Sequence[str]
    cells: Sequence[Sequence[Any]]
    predictions: Sequence[Any]
    probabilities: Sequence[float | None]
    actuals: Mapping[str, Any]
    by_class: Sequence[Sequence[float] | None] = ()
    classes: Sequence[Any] = ()
