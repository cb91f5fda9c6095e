"""Accumulates the result of a replay. No Django here.

Rows arrive in pieces and are not kept. The accumulator keeps counts, sums, histograms and the `WORST` rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from predictions.replays.classes import ClassAccumulator, Side
from predictions.replays.distributions import Histogram, Shift, probability_edges, psi, shift, value_edges
from predictions.replays.rescoring import Answers
from predictions.replays.summary import UNUSABLE, WORST, Labelled, Logged, Part, Summary
from vigia_ml.evaluation import sums

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

BEYOND: Final = (0.01, 0.05, 0.1, 0.25)
QUANTILES: Final = (0.5, 0.9, 0.99)
MOST_CHANGE: Final = 1e6
"""Bound of a relative change; a change from zero would be infinite."""


@dataclass(slots=True)
class _Part:
    """Sums over the rows of one version."""

    rows: int = 0
    answered: int = 0
    changed: int = 0
    before: float = 0.0
    after: float = 0.0

    def shown(self, version: int) -> Part:
        changed, before, after = (
            total / self.answered if self.answered else None
            for total in (self.changed, self.before, self.after)
        )
        return Part(version, self.rows, self.rows - self.answered, changed, before, after)


class _LabelCodes(dict[Any, int]):
    """Label -> code, assigned at the label's first occurrence."""

    def __missing__(self, label: Any) -> int:
        self[label] = len(self)
        return self[label]

    def of(self, labels: Sequence[Any]) -> Codes:
        return np.array(list(map(self.__getitem__, labels)), dtype=np.int64)


@dataclass(slots=True)
class _Pairs:
    """m compared rows.

    before, after : probabilities or values. old, new : codes of labels, None for a regression.
    near : numbers to subtract from `before` for the difference; not always `after`, see `Summary.worst`.
    """

    places: Codes
    before: Floats
    after: Floats
    near: Floats
    old: Codes | None = None
    new: Codes | None = None


class _Quality:
    """The sufficient statistics of the logged or the candidate's answers to labelled rows.

    Answers are evaluated as logged or predicted, whatever the threshold of their version.
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._center: float | None = None
        self._positives, self._negatives = Histogram(probability_edges()), Histogram(probability_edges())
        self._pairs: Counter[tuple[int, int]] = Counter()

    def add_values(self, truth: Floats, predicted: Floats) -> None:
        if self._center is None:
            self._center = float(truth.mean())
        self._add(sums.regression_terms(truth, predicted, self._center))

    def add_binary(
        self, positive: npt.NDArray[np.bool_], score: Floats, decided: npt.NDArray[np.bool_]
    ) -> None:
        self._add(sums.binary_terms(positive, score, decided))
        self._positives.add(score[positive])
        self._negatives.add(score[~positive])

    def add_labels(self, truth: Codes, predicted: Codes) -> None:
        self._pairs.update(zip(predicted.tolist(), truth.tolist(), strict=True))

    def _add(self, terms: Mapping[str, npt.NDArray[Any]]) -> None:
        for name, term in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(term.sum())

    def metrics(self) -> dict[str, float]:
        """Returns the metrics that the rows define."""
        if self._pairs:
            predicted, truth = np.array(list(self._pairs)).T
            metrics = sums.macro(*sums.class_rows(predicted, truth, list(self._pairs.values())))
        elif self._center is not None:
            metrics = sums.regression(self._sums)
        elif self._sums:
            area = sums.area(self._positives.counts, self._negatives.counts)
            metrics = {"roc_auc": area} | sums.binary(self._sums)
        else:
            metrics = {}
        return {name: float(value) for name, value in metrics.items() if np.isfinite(value)}


class ReplayAccumulator:
    """Accumulates the rows of a replay.

    Parameters
    ----------
    task : the model's task: binary, multiclass or regression.
    """

    def __init__(self, task: str) -> None:
        self.task = task
        self.rows = 0
        self._unreadable: Counter[str] = Counter()
        self._parts: dict[int, _Part] = {}
        self._labels = _LabelCodes()
        self._moves: Counter[tuple[int, int]] = Counter()
        edges = value_edges() if task == "regression" else probability_edges()
        self._before, self._after, self._change = Histogram(edges), Histogram(edges), Histogram(value_edges())
        self._beyond = np.zeros(len(BEYOND), dtype=np.int64)
        self._worst: list[dict[str, Any]] = []
        self._labelled = 0
        self._quality_before, self._quality_after = _Quality(), _Quality()
        self._classes = ClassAccumulator()

    # -- adding ------------------------------------------------------------------------------------

    def add(self, logged: Logged, answers: Answers) -> None:
        """Adds logged rows and the candidate's answers."""
        part = self._parts.setdefault(logged.version, _Part())
        self.rows += len(logged.ids)
        part.rows += len(logged.ids)
        self._unreadable.update(answers.refused)
        pairs = self._pairs(logged, answers)
        unusable = len(answers.places) - len(pairs.places)
        if unusable:
            self._unreadable[UNUSABLE] += unusable
        if not len(pairs.places):
            return
        part.answered += len(pairs.places)
        part.before += float(pairs.before.sum())
        part.after += float(pairs.after.sum())
        part.changed += self._compare(pairs)
        self._before.add(pairs.before)
        self._after.add(pairs.after)
        self._keep_worst(logged, pairs)
        if logged.actuals:
            self._judge(logged, answers.classes, pairs)
        if self.task == "multiclass" and logged.by_class:
            self._add_classes(logged, answers, pairs)

    def _pairs(self, logged: Logged, answers: Answers) -> _Pairs:
        places = answers.places
        rows = places.tolist()
        if answers.probabilities is None:
            assert answers.values is not None
            before = _numbers([logged.predictions[row] for row in rows])
            good = np.isfinite(before)
            after = answers.values[good]
            return _Pairs(places[good], before[good], after, after)
        assert answers.labels is not None
        before = _numbers([logged.probabilities[row] for row in rows])
        good = np.isfinite(before)
        probabilities, chosen = answers.probabilities[good], answers.labels[good]
        codes = self._labels.of(answers.classes)
        old = self._labels.of([logged.predictions[row] for row in rows])[good]
        if self.task == "binary":
            after = near = probabilities[:, 1]
        else:
            after = probabilities[np.arange(len(chosen)), chosen]
            # The logged label's probability; 0 for a label that the candidate does not know.
            near = (probabilities * (old[:, None] == codes)).sum(axis=1)
        return _Pairs(places[good], before[good], after, near, old, codes[chosen])

    def _compare(self, pairs: _Pairs) -> int:
        """Counts the changes; returns the number of changed rows."""
        if pairs.old is not None and pairs.new is not None:
            self._moves.update(zip(pairs.old.tolist(), pairs.new.tolist(), strict=True))
            return int((pairs.old != pairs.new).sum())
        difference = np.abs(pairs.after - pairs.before)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            change = np.where(difference == 0.0, 0.0, difference / np.abs(pairs.before))
        change = np.minimum(change, MOST_CHANGE)
        self._change.add(change)
        beyond = np.array([(change > bound).sum() for bound in BEYOND], dtype=np.int64)
        self._beyond += beyond
        return int(beyond[0])

    def _keep_worst(self, logged: Logged, pairs: _Pairs) -> None:
        difference = np.abs(pairs.near - pairs.before)
        floor = self._worst[-1]["difference"] if len(self._worst) == WORST else 0.0
        largest = np.argsort(-difference, kind="stable")[:WORST]
        entries = [self._described(logged, pairs, at) for at in largest[difference[largest] > floor].tolist()]
        every = sorted([*self._worst, *entries], key=lambda row: (-row["difference"], row["id"]))
        self._worst = every[:WORST]

    def _described(self, logged: Logged, pairs: _Pairs, at: int) -> dict[str, Any]:
        row = int(pairs.places[at])
        before: dict[str, Any] = {"prediction": logged.predictions[row]}
        after: dict[str, Any] = {"prediction": float(pairs.after[at])}
        if pairs.new is not None:
            label = list(self._labels)[int(pairs.new[at])]
            before["probability"] = float(pairs.before[at])
            after = {"prediction": label, "probability": float(pairs.after[at])}
        return {
            "id": logged.ids[row],
            "version": logged.version,
            "inputs": dict(zip(logged.names, logged.cells[row], strict=True)),
            "before": before,
            "after": after,
            "difference": float(abs(pairs.near[at] - pairs.before[at])),
        }

    def _judge(self, logged: Logged, classes: Sequence[Any], pairs: _Pairs) -> None:
        """Adds the labelled rows to the quality of both sides."""
        ids = [logged.ids[row] for row in pairs.places.tolist()]
        known = np.array([at for at, each in enumerate(ids) if each in logged.actuals], dtype=np.int64)
        actuals = [logged.actuals[ids[at]] for at in known.tolist()]
        if pairs.old is None or pairs.new is None:
            numbers = _numbers(actuals)
            good = np.isfinite(numbers)  # an earlier version's target may be no number
            known, numbers = known[good], numbers[good]
        self._labelled += len(known)
        if not len(known):
            return
        sides = (
            (self._quality_before, pairs.before[known], pairs.old),
            (self._quality_after, pairs.after[known], pairs.new),
        )
        for quality, number, label in sides:
            if label is None:
                quality.add_values(numbers, number)
            elif self.task == "binary":
                positive = self._labels[classes[1]]
                quality.add_binary(self._labels.of(actuals) == positive, number, label[known] == positive)
            else:
                quality.add_labels(self._labels.of(actuals), label[known])

    def _add_classes(self, logged: Logged, answers: Answers, pairs: _Pairs) -> None:
        """Adds the rows whose log has the probability of every class."""
        arrays = [logged.by_class[row] for row in pairs.places.tolist()]
        usable = [at for at, array in enumerate(arrays) if array and len(array) == len(logged.classes)]
        if not usable or answers.probabilities is None:
            return
        rows = pairs.places[usable]
        own = answers.probabilities[np.searchsorted(answers.places, rows)]
        numbers = np.array([arrays[at] for at in usable], dtype=np.float64)
        before, after = Side(logged.classes, numbers), Side(answers.classes, own)
        self._classes.add(before, after)
        ids = [logged.ids[row] for row in rows.tolist()]
        known = [at for at, each in enumerate(ids) if each in logged.actuals]
        if known:
            before, after = (Side(side.classes, side.probability[known]) for side in (before, after))
            self._classes.judge(before, after, [logged.actuals[ids[at]] for at in known])

    # -- the result --------------------------------------------------------------------------------

    def summary(self) -> Summary:
        """Returns the result of the rows so far."""
        parts, labels = self._parts.values(), list(self._labels)
        answered = sum(part.answered for part in parts)
        is_regression = self.task == "regression"
        changed = None if is_regression else sum(part.changed for part in parts)
        of_classes_before, of_classes_after = self._classes.metrics()
        has_classes = self.task == "multiclass"
        return Summary(
            task=self.task,
            rows=self.rows,
            answered=answered,
            unreadable=dict(self._unreadable.most_common()),
            versions=[part.shown(version) for version, part in sorted(self._parts.items())],
            changed=changed,
            changed_share=changed / answered if changed is not None and answered else None,
            beyond={
                str(bound): int(rows) / answered for bound, rows in zip(BEYOND, self._beyond, strict=True)
            }
            if is_regression and answered
            else {},
            change_quantiles={str(share): self._change.quantile(share) for share in QUANTILES}
            if is_regression
            else {},
            mean_before=sum(part.before for part in parts) / answered if answered else None,
            mean_after=sum(part.after for part in parts) / answered if answered else None,
            of={"regression": "value", "binary": "probability"}.get(self.task, "label"),
            shift=self._shift(labels),
            transitions=[
                {"before": labels[old], "after": labels[new], "rows": rows}
                for (old, new), rows in self._moves.most_common()
            ],
            worst=self._worst,
            outcomes=Labelled(
                self._labelled,
                self._labelled / answered if answered else 0.0,
                self._quality_before.metrics() | of_classes_before,
                self._quality_after.metrics() | of_classes_after,
                self._classes.labelled if has_classes else None,
            ),
            classes=self._classes.shifts(),
            with_probabilities=self._classes.rows if has_classes else None,
        )

    def _shift(self, labels: list[Any]) -> Shift:
        if self.task != "multiclass":
            return shift(self._before, self._after)
        counts = np.zeros((2, len(labels)), dtype=np.int64)
        for (old, new), rows in self._moves.items():
            counts[0, old] += rows
            counts[1, new] += rows
        names = [str(label) for label in labels]
        return Shift(names, [], counts[0].tolist(), counts[1].tolist(), psi(*counts), [], None)


def _numbers(values: Sequence[Any]) -> Floats:
    """Returns numbers (n,), NaN for other values."""
    return np.array([each if isinstance(each, (int, float)) else np.nan for each in values], dtype=np.float64)
