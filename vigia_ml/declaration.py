"""What one file in `training/catalogue/` declares. No Django here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from vigia_ml.schema import DatasetSchema

Task = Literal["binary", "multiclass", "regression"]
Policy = Literal["manual", "if_better", "always"]
Space = Mapping[str, Any]
"""Name of a parameter of the pipeline -> list of values, or a scipy distribution."""

CLASSIFICATION_METRICS: Final = ("roc_auc", "accuracy", "precision", "recall", "f1", "log_loss", "brier")
REGRESSION_METRICS: Final = ("rmse", "mae", "r2", "mape")
SMALLER_IS_BETTER: Final = frozenset({"log_loss", "brier", "rmse", "mae", "mape"})


@dataclass(frozen=True)
class Gate:
    """What a candidate must reach before the policy may activate it.

    Parameters
    ----------
    minimum : metric -> value the candidate must at least reach (at most, for errors such as rmse).
    max_regression : how much worse than the active version, on the same hold-out, the primary metric
        may be, as a share of the active version's value (0.02 = two per cent).
    engine : ``"onnx"`` when a version that scikit-learn has to serve must not pass; empty: any engine may.
        A compiled engine always has to give scikit-learn's answers.
    max_latency_ms : what one row may take the engine that serves it, the median in milliseconds.
    slices : column -> how much worse than the active version each of its levels may be, on the same rows
        of the hold-out, as a share of the active version's value. Categories and booleans alone.
    slice_metric : by which metric; empty: the primary one.
    slice_rows : a level with fewer hold-out rows, or hardly any of a second class, is not judged.
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
    """What a drift review calls drift.

    Parameters
    ----------
    significance : what share of the columns called significant may be so by chance (the false discovery
        rate of Benjamini and Hochberg).
    psi : adjusted population stability index from which a significant change is large enough to be drift.
    minimum_rows : of a window; with fewer nothing is said.
    share : of the importance of all columns: so much of it must have drifted for the model to drift. Where
        importances are not known, one column is enough.
    quality_fall : by what share of its value on the hold-out the watched metric has to be worse for the
        quality to count as fallen, its interval lying on that side altogether. Watched is the primary one;
        of more than two classes outcomes say no roc_auc, log_loss or brier, and accuracy is watched instead.
    minimum_outcomes : with fewer no metric is given.
    """

    significance: float = 0.05
    psi: float = 0.1
    minimum_rows: int = 50
    share: float = 0.1
    quality_fall: float = 0.1
    minimum_outcomes: int = 50


@dataclass(frozen=True)
class ModelDeclaration:
    """One registered model: everything else is derived from this.

    Parameters
    ----------
    name : as it stands in URLs: lower-case letters, digits, ``_``.
    title, description : for people.
    task : ``binary`` (boolean target, or a category of two levels in sorted order, as scikit-learn has its
        classes: the second is the positive one, whose probability is answered), ``multiclass`` (category
        target) or ``regression``.
    schema : the columns of the training CSV.
    build : seed -> unfitted scikit-learn estimator that takes a frame of `schema.names` (see
        `vigia_ml.fitting.frames`) and, for regression, answers in the target's unit.
    primary_metric : what "better" means.
    gate : see `Gate`.
    policy : who decides about activation at first; later the registered model's row does.
    threshold : probability from which a binary answer is true.
    drop_duplicates : train on distinct rows only. Repeated rows say how often something happens, so they
        stay unless a file lists the same thing twice.
    holdout : share of the rows kept out of training for the metrics.
    by_row_from : how often a feature row must occur for its copies to be divided between training part and
        hold-out; 1 divides all rows one by one, None keeps equal feature rows on one side. ``auto`` is
        `vigia_ml.evaluation.metrics.by_row_from`.
    seed : of the split and of the estimator.
    watch : see `MonitoringConfig`.
    search : the space a search for hyper-parameters draws from (see
        `vigia_ml.fitting.hyperparameter_search`), or a function that returns it, so that scipy is imported
        when a search begins; None: no search.
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
            raise ValueError(f"{self.name}: {self.primary_metric!r} is none of {', '.join(self.metrics)}")
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
                f"{self.name}: the second level of a binary target is the positive one, and both have to "
                f"stand in sorted order: levels={levels}"
            )
        self._check_gate()

    def _check_gate(self) -> None:
        for metric in (*self.gate.minimum, *filter(None, [self.gate.slice_metric])):
            if metric not in self.metrics:
                raise ValueError(f"{self.name}: the gate asks for {metric!r}, which is not reported")
        for name in self.gate.slices:
            column = self.schema.by_name.get(name)
            if column is None or column.type not in ("category", "boolean"):
                raise ValueError(f"{self.name}: {name!r} is no category or boolean to slice by")

    def space(self) -> Space:
        """The space to search; empty without one."""
        return (self.search() if callable(self.search) else self.search) or {}

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics every version of this model reports."""
        return REGRESSION_METRICS if self.task == "regression" else CLASSIFICATION_METRICS
