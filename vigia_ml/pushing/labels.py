"""The classes of a foreign classifier as labels of the API. No Django here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vigia_ml.pushing.cells import json_value
from vigia_ml.pushing.errors import NotPushable
from vigia_ml.schema import Column
from vigia_ml.schema.columns import is_storable


@dataclass(frozen=True)
class Labels:
    """The classes of a classifier, in the order of the API.

    own : the classifier's classes (k,). labels : the API's (k,): false and true, or texts in sorted order.
    order : position of each label's class in `own`.

    Sorted labels are what scikit-learn's own metrics and the service expect of a list of classes.
    """

    own: tuple[Any, ...]
    labels: tuple[bool, ...] | tuple[str, ...]
    order: tuple[int, ...]

    @property
    def are_own(self) -> bool:
        """Whether the classifier's classes are the labels already."""
        same = all(
            isinstance(own, type(label)) and own == label
            for own, label in zip(self.own, self.labels, strict=True)
        )
        return same and self.order == tuple(range(len(self.order)))

    def column(self, name: str) -> Column:
        """Returns the target's column."""
        if isinstance(self.labels[0], bool):
            return Column(name, "boolean")
        levels = tuple(str(label) for label in self.labels)
        return Column(name, "category", levels=levels, max_length=max(200, *map(len, levels)))

    def of(self, answers: pd.Series[Any], which: str) -> list[Any]:
        """Returns a target (n,) as labels.

        Raises
        ------
        NotPushable : `which` rows hold a class that the classifier does not know, or no value.
        """
        known = {json_value(own, "y"): self.labels[self.order.index(at)] for at, own in enumerate(self.own)}
        codes, distinct = pd.factorize(answers.astype(object))
        if (codes < 0).any():
            raise NotPushable(
                f"{int((codes < 0).sum()):,} values of {which} are missing: leave these rows out"
            )
        cells = [json_value(cell, which) for cell in distinct]
        for cell in cells:
            if cell not in known:
                raise NotPushable(
                    f"{which} holds the class {cell!r}, which the classifier does not know; its classes are "
                    f"{', '.join(map(repr, list(known)[:10]))}",
                    advice="fit on rows of every class, or leave these rows out",
                )
        table = np.array([known[cell] for cell in cells], dtype=object)
        return list(table[codes].tolist())


def labels_of(classes: Iterable[Any], source: str) -> Labels:
    """Returns the labels of a classifier's classes.

    Booleans and the numbers 0 and 1 become booleans, other whole numbers their decimal text, texts stay.

    Raises
    ------
    NotPushable : for classes that have no label, or for two whose labels would say the opposite.
    """
    own = tuple(json_value(each, source) for each in classes)
    if len(own) < 2:
        raise NotPushable(f"{source} hold only {len(own)} class: a classifier needs two", advice="")
    if all(isinstance(each, bool) for each in own) or (len(own) == 2 and _are_0_and_1(own)):
        return Labels(own, (False, True), (0, 1) if not own[0] else (1, 0))
    texts = [_text(each, source) for each in own]
    if len(set(texts)) < len(texts):
        raise NotPushable(f"{source} hold two classes that are one text for the service: {sorted(texts)}")
    order = tuple(int(place) for place in sorted(range(len(texts)), key=texts.__getitem__))
    if len(texts) == 2 and order != (0, 1):
        raise NotPushable(
            f"of the classes {own[0]!r} and {own[1]!r}, the classifier's positive one is {own[1]!r}, but as "
            f"texts the service sorts {texts[1]!r} first",
            advice="fit on a boolean: y = y == " + repr(own[1]),
        )
    return Labels(own, tuple(texts[place] for place in order), order)


def _are_0_and_1(own: tuple[Any, ...]) -> bool:
    return all(isinstance(each, int | float) for each in own) and set(own) == {0, 1}


def _text(label: Any, source: str) -> str:
    if isinstance(label, str):
        text = Column("class", "category").canonical_text(label)
        if text and is_storable(text):
            return text
        raise NotPushable(
            f"{source} hold the class {label!r}, which is blank or holds characters without form"
        )
    if isinstance(label, bool) or not isinstance(label, int | float) or not float(label).is_integer():
        raise NotPushable(
            f"{source} hold the class {label!r}; accepted: booleans, texts and whole numbers",
            advice="fit on texts: y = y.astype(str)",
        )
    return str(int(label))


def as_series(answers: Any) -> pd.Series[Any]:
    """Returns a target as a series (n,): of a series, an array, a list or a frame of one column."""
    if isinstance(answers, pd.DataFrame):
        if answers.shape[1] != 1:
            raise NotPushable(f"y has {answers.shape[1]} columns: the service serves models of one target")
        return answers.iloc[:, 0]
    if isinstance(answers, pd.Series):
        return answers
    array: npt.NDArray[Any] = np.asarray(answers)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise NotPushable(f"y has the shape {array.shape}: the service serves models of one target")
    return pd.Series(array)
