"""The declaration of a model, made by one file in `training/catalogue/`. No Django here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from vigia_ml.schema import DatasetSchema

Task = Literal["binary", "multiclass", "regression"]
Policy = Literal["manual", "if_better", "always"]
Space = Mapping[str, Any]
"""Name of a pipeline parameter -> list of values, or a scipy distribution."""

CLASSIFICATION_METRICS: Final = ("roc_auc", "accuracy", "precision", "recall", "f1", "log_loss", "brier")
REGRESSION_METRICS: Final = ("rmse", "mae", "r2", "mape")
PRIMARY: Final[Mapping[Task, str]] = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "r2"}
"""Usual primary metrics, which outcomes give as well; for more than two classes they do not give the area."""
SMALLER_IS_BETTER: Final = frozenset({"log_loss", "brier", "rmse", "mae", "mape"})


@dataclass(frozen=True)
class Gate:
    """Conditions that a candidate must meet before the policy may activate it.

    Parameters
    ----------
    minimum : metric -> least accepted value (largest, for errors such as rmse).
    max_regression : accepted loss of the primary metric against the active version on the same hold-out,
        as a share of the active version's value (0.02 = two per cent).
    engine : ``"onnx"`` rejects versions that only scikit-learn can serve; empty: any engine passes.
        A compiled engine must always give scikit-learn's answers.
    max_latency_ms : largest accepted median latency of the serving engine for one row, in milliseconds.
    slices : column -> accepted loss of each of its levels against the active version on the same hold-out
        rows, as a share of the active version's value. Only categories and booleans.
    slice_metric : metric of the slices; empty: the primary metric.
    slice_rows : least hold-out rows of a judged level; a level with too few rows of a second class is not
        judged either.
    """

    minimum: Mapping[str, float] = field(default_factory=dict)
    max_regression: float = 0.0
    engine: Literal["", "onnx"] = ""
    max_latency_ms: float = 100.0
    slices: Mapping[str, float] = field(default_factory=dict)
    slice_metric: str = ""
    slice_rows: int = 50


@dataclass(frozen=True)
class MonitoringConfig:
    """Thresholds of drift reviews and of realised quality.

    Parameters
    ----------
    significance : accepted share of false positives among significant columns (the false discovery rate of
        Benjamini and Hochberg).
    psi : adjusted population stability index from which a significant change counts as drift.
    minimum_rows : least rows of a window for a verdict.
    share : share of the importance of all columns that must drift for the model to drift. Where importances
        are unknown, one column is enough.
    quality_fall : share of its hold-out value by which the watched metric must be worse to count as fallen,
        with its whole interval on that side. The watched metric is the primary one; for more than two classes
        outcomes give no roc_auc, log_loss or brier, and accuracy replaces these.
    minimum_outcomes : least outcomes for a metric.
    """

    significance: float = 0.05
    psi: float = 0.1
    minimum_rows: int = 50
    share: float = 0.1
    quality_fall: float = 0.1
    minimum_outcomes: int = 50


@dataclass(frozen=True)
class ModelDeclaration:
    """One registered model, from which everything else is derived.

    Parameters
    ----------
    name : name in URLs: lower-case letters, digits, ``_``.
    title, description : for people.
    task : ``binary`` (boolean target, or a category of two levels in sorted order, as in scikit-learn's
        classes: the second is the positive one, whose probability is predicted), ``multiclass`` (category
        target) or ``regression``.
    schema : the columns of the training CSV.
    build : seed -> unfitted scikit-learn estimator that takes a frame of `schema.names` (see
        `vigia_ml.fitting.frames`) and, for regression, predicts in the target's unit.
    primary_metric : metric that compares versions.
    gate : see `Gate`.
    policy : first activation policy; the registered model's row keeps it and may change it.
    threshold : probability from which a binary prediction is true.
    drop_duplicates : whether to train on distinct rows only. Repeated rows show how often something happens,
        so they stay unless a file lists the same thing twice.
    holdout : share of the rows kept out of training for the metrics.
    by_row_from : number of copies from which a feature row is divided between training part and hold-out;
        1 divides all rows one by one, None keeps equal feature rows on one side. ``auto`` is
        `vigia_ml.evaluation.metrics.by_row_from`.
    seed : seed of the split and of the estimator.
    watch : see `MonitoringConfig`.
    search : space of the hyper-parameter search (see `vigia_ml.fitting.hyperparameter_search`), or a function
        that returns it, so that scipy is imported only when a search begins; None: no search.
    """

    name: str
    title: str
    description: str
    task: Task
    schema: DatasetSchema
    build: Callable[[int], Any]
    primary_metric: str
    gate: Gate = field(default_factory=Gate)
    watch: MonitoringConfig = field(default_factory=MonitoringConfig)
    policy: Policy = "manual"
    threshold: float = 0.5
    drop_duplicates: bool = False
    holdout: float = 0.2
    by_row_from: int | Literal["auto"] | None = "auto"
    seed: int = 1
    search: Space | Callable[[], Space] | None = None

    def __post_init__(self) -> None:
        if self.primary_metric not in self.metrics:
            raise ValueError(
                f"{self.name}: {self.primary_metric!r} is not a metric of the task; accepted: "
                f"{', '.join(self.metrics)}"
            )
        kind = self.schema.target.type
        fits = {
            "binary": kind == "boolean" or len(self.schema.target.levels) == 2,
            "multiclass": kind == "category",
            "regression": kind in ("number", "integer"),
        }
        if not fits[self.task]:
            raise ValueError(f"{self.name}: a {kind} target does not fit the task {self.task!r}")
        levels = tuple(sorted(self.schema.target.levels))
        if self.task == "binary" and self.schema.target.levels != levels:
            raise ValueError(
                f"{self.name}: the second level of a binary target is the positive one, so both must be "
                f"in sorted order: levels={levels}"
            )
        self._check_gate()

    def _check_gate(self) -> None:
        for metric in (*self.gate.minimum, *filter(None, [self.gate.slice_metric])):
            if metric not in self.metrics:
                raise ValueError(
                    f"{self.name}: the gate names {metric!r}, which is not a metric of the task; accepted: "
                    f"{', '.join(self.metrics)}"
                )
        for name in self.gate.slices:
            column = self.schema.by_name.get(name)
            if column is None or column.type not in ("category", "boolean"):
                raise ValueError(
                    f"{self.name}: slices need a category or boolean column; {name!r} is neither"
                )

    def space(self) -> Space:
        """Returns the search space; empty where none is declared."""
        return (self.search() if callable(self.search) else self.search) or {}

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that every version of this model reports."""
        return REGRESSION_METRICS if self.task == "regression" else CLASSIFICATION_METRICS
