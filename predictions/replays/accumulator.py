"""Accumulates the result of a replay. No Django here.

Rows arrive in pieces and are not kept. The accumulator keeps counts, sums, buckets, the `WORST` rows, and a
few numbers of each labelled row.
"""

from __future__ import annotations

import heapq
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from predictions.replays.rescoring import Answers
from predictions.replays.sketches import Counts, GrowingBuckets, Shift, UnitBuckets, psi, shift
from predictions.replays.summary import UNUSABLE, WORST, Labelled, Logged, Part, Summary

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

BEYOND: Final = (0.01, 0.05, 0.1, 0.25)
QUANTILES: Final = (0.5, 0.9, 0.99)
MOST_CHANGE: Final = 1e6
"""Bound of a relative change; a change from zero would be infinite."""
DECIDED: Final = ("accuracy", "precision", "recall", "f1")


@dataclass(slots=True)
class _Sums:
    rows: int = 0
    answered: int = 0
    changed: int = 0
    before: float = 0.0
    after: float = 0.0

    def mean(self, total: float) -> float | None:
        return total / self.answered if self.answered else None


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
        self._parts: dict[int, _Sums] = {}
        self._labels = _LabelCodes()
        self._moves: Counter[tuple[int, int]] = Counter()
        buckets = GrowingBuckets() if task == "regression" else UnitBuckets()
        self._before, self._after = Counts(buckets), Counts(buckets)
        self._change = Counts(GrowingBuckets())
        self._beyond = np.zeros(len(BEYOND), dtype=np.int64)
        self._worst: list[tuple[float, str, dict[str, Any]]] = []
        self._known: list[tuple[npt.NDArray[Any], ...]] = []
        self._classes: tuple[Any, ...] = ()

    # -- adding ------------------------------------------------------------------------------------

    def add(self, logged: Logged, answers: Answers) -> None:
        """Adds logged rows and the candidate's answers."""
        sums = self._parts.setdefault(logged.version, _Sums())
        self.rows += len(logged.ids)
        sums.rows += len(logged.ids)
        self._unreadable.update(answers.refused)
        pairs = self._pairs(logged, answers)
        unusable = len(answers.places) - len(pairs.places)
        if unusable:
            self._unreadable[UNUSABLE] += unusable
        if not len(pairs.places):
            return
        sums.answered += len(pairs.places)
        sums.before += float(pairs.before.sum())
        sums.after += float(pairs.after.sum())
        sums.changed += self._compare(pairs)
        self._before.add(pairs.before)
        self._after.add(pairs.after)
        self._keep_worst(logged, pairs)
        self._keep_outcomes(logged, pairs)

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
        self._classes = self._classes or answers.classes
        codes = self._labels.of(answers.classes)
        old = self._labels.of([logged.predictions[row] for row in rows])[good]
        if self.task == "binary":
            after = near = probabilities[:, 1]
        else:
            after = probabilities[np.arange(len(chosen)), chosen]
            near = _probability_of(probabilities, codes, old)
        return _Pairs(places[good], before[good], after, near, old, codes[chosen])

    def _compare(self, pairs: _Pairs) -> int:
        """Counts the changes; returns the number of changed rows."""
        if pairs.old is not None and pairs.new is not None:
            moves, times = np.unique(np.stack([pairs.old, pairs.new]), axis=1, return_counts=True)
            for (old, new), count in zip(moves.T.tolist(), times.tolist(), strict=True):
                self._moves[old, new] += count
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
        candidates = np.arange(len(difference))
        if len(difference) > WORST:
            candidates = np.argpartition(difference, -WORST)[-WORST:]
        floor = self._worst[0][0] if len(self._worst) == WORST else 0.0
        for at in candidates.tolist():
            size = float(difference[at])
            if size <= floor:
                continue
            row = int(pairs.places[at])
            entry = (size, logged.ids[row], self._described(logged, pairs, at, row))
            if len(self._worst) < WORST:
                heapq.heappush(self._worst, entry)
            else:
                heapq.heappushpop(self._worst, entry)
            floor = self._worst[0][0] if len(self._worst) == WORST else 0.0

    def _described(self, logged: Logged, pairs: _Pairs, at: int, row: int) -> dict[str, Any]:
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

    def _keep_outcomes(self, logged: Logged, pairs: _Pairs) -> None:
        if not logged.actuals:
            return
        rows = pairs.places.tolist()
        known = [at for at, row in enumerate(rows) if logged.ids[row] in logged.actuals]
        if not known:
            return
        actuals = [logged.actuals[logged.ids[rows[at]]] for at in known]
        if pairs.old is None or pairs.new is None:
            numbers = _numbers(actuals)
            good = np.isfinite(numbers)  # an earlier version's target may be no number
            self._known.append((pairs.before[known][good], pairs.after[known][good], numbers[good]))
            return
        truth = self._labels.of(actuals)
        kept = (pairs.old[known], pairs.new[known], truth)
        self._known.append(
            (pairs.before[known], pairs.after[known], *(codes.astype(np.int32) for codes in kept))
        )

    # -- the result --------------------------------------------------------------------------------

    def summary(self) -> Summary:
        """Returns the result; needs scikit-learn if rows have outcomes."""
        answered = sum(each.answered for each in self._parts.values())
        labels = list(self._labels)
        is_regression = self.task == "regression"
        changed = None if is_regression else sum(each.changed for each in self._parts.values())
        moves = sorted(self._moves.items(), key=lambda item: -item[1])
        return Summary(
            task=self.task,
            rows=self.rows,
            answered=answered,
            unreadable=dict(self._unreadable.most_common()),
            versions=[_part(version, self._parts[version]) for version in sorted(self._parts)],
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
            mean_before=sum(each.before for each in self._parts.values()) / answered if answered else None,
            mean_after=sum(each.after for each in self._parts.values()) / answered if answered else None,
            of={"regression": "value", "binary": "probability"}.get(self.task, "label"),
            shift=self._shift(labels),
            transitions=[
                {"before": labels[old], "after": labels[new], "rows": rows} for (old, new), rows in moves
            ],
            worst=[row for _, _, row in sorted(self._worst, key=lambda entry: (-entry[0], entry[1]))],
            outcomes=self._outcomes(answered, labels),
        )

    def _shift(self, labels: list[Any]) -> Shift:
        if self.task != "multiclass":
            return shift(self._before, self._after, unit=self.task == "binary")
        counts = np.zeros((2, len(labels)), dtype=np.int64)
        for (old, new), rows in self._moves.items():
            counts[0, old] += rows
            counts[1, new] += rows
        names = [str(label) for label in labels]
        return Shift(names, [], counts[0].tolist(), counts[1].tolist(), psi(*counts), [], None)

    def _outcomes(self, answered: int, labels: list[Any]) -> Labelled:
        if not self._known:
            return Labelled(0, 0.0, {}, {})
        kept = [np.concatenate(column) for column in zip(*self._known, strict=True)]
        rows = len(kept[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns of metrics that these rows do not define
            if self.task == "regression":
                before, after = (_values_metrics(kept[2], predicted) for predicted in kept[:2])
            else:
                old_probability, new_probability, old, new, truth = kept
                before = self._label_metrics(labels, truth, old_probability, old)
                after = self._label_metrics(labels, truth, new_probability, new)
        return Labelled(rows, rows / answered, before, after)

    def _label_metrics(
        self, labels: list[Any], truth: Codes, probability: Floats, answered: Codes
    ) -> dict[str, float]:
        """Returns the metrics of answers (n,) and their probabilities.

        The answers are evaluated as logged or predicted, whatever the threshold of their version.
        """
        from vigia_ml.evaluation.metrics import classification_metrics

        if self.task != "binary":
            classes = np.arange(len(labels))
            onehot = (answered[:, None] == classes[None, :]).astype(np.float64)
            metrics = classification_metrics(classes, truth, onehot, 0.5)
            return _defined({name: metrics[name] for name in DECIDED})
        positive = self._labels[self._classes[1]]
        actual, decided = truth == positive, (answered == positive).astype(np.float64)
        both = np.array([False, True])
        by_decision = classification_metrics(both, actual, np.column_stack([1 - decided, decided]), 0.5)
        by_probability = classification_metrics(
            both, actual, np.column_stack([1 - probability, probability]), 0.5
        )
        return _defined(by_probability | {name: by_decision[name] for name in DECIDED})


def _values_metrics(truth: Floats, predicted: Floats) -> dict[str, float]:
    from vigia_ml.evaluation.metrics import regression_metrics

    return _defined(regression_metrics(truth, predicted))


def _defined(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def _part(version: int, sums: _Sums) -> Part:
    return Part(
        version=version,
        rows=sums.rows,
        unreadable=sums.rows - sums.answered,
        changed=sums.mean(sums.changed),
        mean_before=sums.mean(sums.before),
        mean_after=sums.mean(sums.after),
    )


def _numbers(values: Sequence[Any]) -> Floats:
    """Returns numbers (n,), NaN for other values."""
    try:
        return np.array(values, dtype=np.float64)  # None is NaN
    except (TypeError, ValueError):
        return np.array(
            [value if isinstance(value, (int, float)) else np.nan for value in values], dtype=np.float64
        )


def _probability_of(probabilities: Floats, codes: Codes, labels: Codes) -> Floats:
    """Returns each row's probability of its label (n,); 0 for a label that the candidate does not know."""
    selected = np.zeros(len(labels))
    for place, code in enumerate(codes.tolist()):
        selected = np.where(labels == code, probabilities[:, place], selected)
    return selected
