"""Reads the trees of LightGBM, XGBoost and CatBoost estimators into plain arrays. No Django here.

The module imports none of the three libraries: it finds an estimator's class by name, and asks the fitted
object for its own text or JSON. Numbers keep the library's precision: LightGBM has double thresholds, XGBoost
and CatBoost round inputs and thresholds to single; XGBoost also adds its leaves in single.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from vigia_ml.engines.onnx_export.trees import Tree

Floats = NDArray[np.float64]
Link = Literal["identity", "exp", "sigmoid", "softmax", "signed square"]


class NotReadable(ValueError):
    """Raised for an estimator that the compiler does not support; the message completes ``<class> …``."""


@dataclass(frozen=True)
class Boosted:
    """A fitted booster: the sum of a row's leaves, through a link.

    trees : (index of the sum, tree). base : (k,) where the sums begin.
    link : from sums to answers. slope : factor of the sums before a sigmoid.
    rounds_input : whether it compares values rounded to single.
    adds_single : whether it adds leaves in single.
    divisor : of the sums, for a mean of trees.
    smallest : numbers up to this size are zeros. zero_is_missing : features whose zeros are missing values.
    """

    trees: list[tuple[int, Tree]]
    base: Floats
    link: Link
    rounds_input: bool = False
    adds_single: bool = False
    divisor: float = 1.0
    slope: float = 1.0
    smallest: float = 0.0
    zero_is_missing: tuple[int, ...] = ()


def reader(model: Any) -> Callable[[Any], Boosted] | None:
    """Returns the function that reads a fitted estimator's trees; None for other classes."""
    kind = type(model)
    return READERS.get((kind.__module__, kind.__name__))


def thresholds(model: Any) -> tuple[Floats, Floats]:
    """Returns features (m,) and thresholds (m,) of all splits; empty where the trees cannot be read."""
    read = reader(model)
    try:
        trees = [] if read is None else read(model).trees
    except NotReadable:  # the compiler names the reason
        trees = []
    splits = [(tree.feature[~tree.is_leaf], tree.threshold[~tree.is_leaf]) for _, tree in trees]
    features = np.concatenate([np.empty(0), *(each for each, _ in splits)])
    return features, np.concatenate([np.empty(0), *(each for _, each in splits)])


def _is_classifier(model: Any) -> bool:
    return bool(type(model).__name__.endswith("Classifier"))


# -- LightGBM ------------------------------------------------------------------------------------------

# Bits of a split's decision type, and `kZeroThreshold`, in LightGBM's include/LightGBM/tree.h and meta.h.
CATEGORICAL, DEFAULT_LEFT, MISSING_ZERO, MISSING_NAN = 1, 2, 1, 2
ZERO: Final = float(np.float32(1e-35))
LIGHTGBM_LINKS: Final[dict[str, Link]] = {
    **dict.fromkeys(("regression", "regression_l1", "huber", "fair", "quantile", "mape"), "identity"),
    **dict.fromkeys(("poisson", "gamma", "tweedie"), "exp"),
    "binary": "sigmoid",
    "multiclass": "softmax",
}


def _lightgbm(model: Any) -> Boosted:
    # Without the number of trees, the text ends at the best iteration of early stopping.
    header, *blocks = model.booster_.model_to_string().split("\nTree=")
    known = dict(line.partition("=")[::2] for line in header.splitlines() if line)
    if model.get_params().get("pred_early_stop"):
        raise NotReadable("stops before its last tree: leave out pred_early_stop")
    name, *parameters = known.get("objective", "custom").split()
    link = LIGHTGBM_LINKS.get(name)
    if link is None or _is_classifier(model) != (link in ("sigmoid", "softmax")):
        advice = ": use objective='multiclass'" if name == "multiclassova" else ""
        raise NotReadable(f"has the objective {name}, which the compiler does not support{advice}")
    if "sqrt" in parameters:
        link = "signed square"
    slope = next((float(each[8:]) for each in parameters if each.startswith("sigmoid:")), 1.0)
    sums = int(known["num_tree_per_iteration"])
    trees: list[tuple[int, Tree]] = []
    zeros: dict[int, set[bool]] = {}
    for place, block in enumerate(blocks):
        lines = dict(
            line.partition("=")[::2] for line in block.split("\n\n", 1)[0].splitlines() if "=" in line
        )
        trees.append((place % sums, _lightgbm_tree(lines, zeros)))
    if any(len(found) > 1 for found in zeros.values()):
        raise NotReadable("takes zeros of one feature for missing in some trees only")
    is_mean = "average_output" in header.splitlines()
    return Boosted(
        trees,
        np.zeros(sums),
        link,
        slope=slope,
        divisor=float(max(len(trees) // sums, 1)) if is_mean else 1.0,
        smallest=ZERO,
        zero_is_missing=tuple(feature for feature, found in zeros.items() if found == {True}),
    )


def _lightgbm_tree(lines: Mapping[str, str], zeros: dict[int, set[bool]]) -> Tree:
    def numbers(name: str, dtype: type) -> NDArray[Any]:
        return np.array(lines.get(name, "").split(), dtype=dtype)

    if lines.get("is_linear", "0") != "0":
        raise NotReadable("has linear models in its leaves: leave out linear_tree")
    leaves = numbers("leaf_value", np.float64)
    if len(leaves) == 1:
        return _constant(leaves)
    decisions, limits = numbers("decision_type", np.int64), numbers("threshold", np.float64)
    features = numbers("split_feature", np.int64)
    if (decisions & CATEGORICAL).any():
        raise NotReadable("splits by sets of categories: encode them in a step before it")
    missing = decisions >> 2 & 3
    for feature, kind in zip(features.tolist(), (missing == MISSING_ZERO).tolist(), strict=True):
        zeros.setdefault(feature, set()).add(kind)
    # A null is a zero for features that had none in training.
    default = np.where(missing == 0, limits >= 0.0, (decisions & DEFAULT_LEFT) > 0)
    splits = len(features)
    # LightGBM numbers leaves -1, -2, …; here they follow the splits.
    left, right = (
        np.where(each < 0, splits + ~each, each)
        for each in (numbers("left_child", np.int64), numbers("right_child", np.int64))
    )
    return _joined(left, right, features, limits, default, leaves)


def _constant(leaves: Floats) -> Tree:
    nothing = np.zeros(1, dtype=np.int64)
    return Tree(nothing - 1, nothing - 1, nothing, np.zeros(1), nothing, np.ones(1, dtype=bool), leaves)


def _joined(left: Any, right: Any, features: Any, limits: Any, nan_left: Any, leaves: Any) -> Tree:
    """Returns the tree of splits (m,) followed by leaves (l,); children are numbered over both."""
    splits, ends = len(features), len(leaves)
    none = np.full(ends, -1)
    return Tree(
        np.concatenate([left, none]),
        np.concatenate([right, none]),
        np.concatenate([features, np.zeros(ends, dtype=np.int64)]),
        np.concatenate([limits, np.zeros(ends)]),
        np.concatenate([nan_left, np.zeros(ends)]).astype(np.int64),
        np.arange(splits + ends) >= splits,
        np.concatenate([np.zeros(splits), leaves]),
    )


# -- XGBoost -------------------------------------------------------------------------------------------

XGBOOST_LINKS: Final[dict[str, Link]] = {
    **dict.fromkeys(
        (
            "reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror",
            "reg:quantileerror",
        ),
        "identity",
    ),
    **dict.fromkeys(("count:poisson", "reg:gamma", "reg:tweedie"), "exp"),
    **dict.fromkeys(("binary:logistic", "reg:logistic"), "sigmoid"),
    "multi:softprob": "softmax",
}  # fmt: skip


def _xgboost(model: Any) -> Boosted:
    booster = model.get_booster()
    with contextlib.suppress(AttributeError):  # the fit did not stop early
        booster = booster[: model.best_iteration + 1]  # where predictions end
    learner = json.loads(booster.save_raw("json"))["learner"]
    name, kind = learner["objective"]["name"], learner["gradient_booster"]["name"]
    link = XGBOOST_LINKS.get(name)
    is_probability = name in ("binary:logistic", "multi:softprob")
    if link is None or _is_classifier(model) != is_probability:
        raise NotReadable(f"has the objective {name}, which the compiler does not support")
    # From XGBoost 3.4 on, dart is a tree booster with weights.
    if any(weight != 1.0 for weight in learner["gradient_booster"].get("model", {}).get("weight_drop", ())):
        kind = "dart"
    if kind != "gbtree":
        raise NotReadable(f"has the booster {kind}, which the compiler does not support: use gbtree")
    if model.missing is not None and not np.isnan(model.missing):
        raise NotReadable(f"takes {model.missing!r} for missing: leave out the parameter missing")
    parameters, trees = learner["learner_model_param"], learner["gradient_booster"]["model"]
    sums = max(int(parameters["num_class"]), 1)
    if int(parameters.get("num_target", "1")) > 1:
        raise NotReadable("predicts several targets")
    scores = np.array(parameters["base_score"].strip("[]").split(","), dtype=np.float32)
    read = [_xgboost_tree(each) for each in trees["trees"]]
    return Boosted(
        list(zip(trees["tree_info"], read, strict=True)),
        np.broadcast_to(_margin(scores, link), (sums,)).astype(np.float64),
        link,
        rounds_input=True,
        adds_single=True,
    )


def _margin(scores: NDArray[np.float32], link: Link) -> NDArray[np.float32]:
    """Returns where the sums begin, in single as XGBoost computes it (`ProbToMargin`)."""
    if link == "sigmoid":
        return np.asarray(-np.log(np.float32(1) / scores - np.float32(1)), dtype=np.float32)
    return np.log(scores) if link == "exp" else scores


def _xgboost_tree(tree: Mapping[str, Any]) -> Tree:
    if any(tree["split_type"]):
        raise NotReadable("splits by sets of categories: encode them in a step before it")
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise NotReadable("has several numbers in a leaf: use multi_strategy='one_output_per_tree'")
    left = np.array(tree["left_children"], dtype=np.int64)
    conditions = np.array(tree["split_conditions"], dtype=np.float32)
    # XGBoost compares singles by `<`: at most the single below.
    below = np.nextafter(conditions, np.float32(-np.inf), dtype=np.float32)
    return Tree(
        left,
        np.array(tree["right_children"], dtype=np.int64),
        np.array(tree["split_indices"], dtype=np.int64),
        below.astype(np.float64),
        np.array(tree["default_left"], dtype=np.int64),
        left < 0,
        conditions.astype(np.float64),
    )


# -- CatBoost ------------------------------------------------------------------------------------------

CATBOOST_LINKS: Final[dict[str, Link]] = {
    **dict.fromkeys(("RMSE", "MAE", "Quantile", "MAPE", "Huber", "LogCosh", "Expectile", "Lq"), "identity"),
    **dict.fromkeys(("Poisson", "Tweedie"), "exp"),
    **dict.fromkeys(("Logloss", "CrossEntropy"), "sigmoid"),
    "MultiClass": "softmax",
}


def _catboost(model: Any) -> Boosted:
    loss = str(model.get_all_params()["loss_function"]).partition(":")[0]
    link = CATBOOST_LINKS.get(loss)
    if link is None or _is_classifier(model) != (link in ("sigmoid", "softmax")):
        raise NotReadable(f"has the loss {loss}, which the compiler does not support")
    place, name = tempfile.mkstemp(suffix=".json")
    os.close(place)
    try:
        model.save_model(name, format="json")
        content = json.loads(Path(name).read_text("utf-8"))
    finally:
        with contextlib.suppress(PermissionError):  # a sandbox lets nobody remove a file
            Path(name).unlink()
    info = content["features_info"]
    if info.keys() - {"float_features"} or not set(content) <= {
        "features_info", "model_info", "oblivious_trees", "trees", "scale_and_bias"
    }:  # fmt: skip
        raise NotReadable("reads categories or texts itself: encode them in a step before it")
    features = {each["feature_index"]: each for each in info["float_features"]}
    scale, bias = content["scale_and_bias"]
    base = np.array(bias, dtype=np.float64)
    trees: list[tuple[int, Tree]] = []
    for tree in content.get("oblivious_trees", ()):
        trees += _oblivious(tree, features, scale, len(base))
    for tree in content.get("trees", ()):
        trees += _nested(tree, features, scale, len(base))
    return Boosted(trees, base, link, rounds_input=True)


Splits = list[tuple[int, float, bool]]


def _split(split: Mapping[str, Any], features: Mapping[int, Any]) -> tuple[int, float, bool]:
    """Returns a split's feature, border, and whether a null lies below."""
    if split["split_type"] != "FloatFeature":
        raise NotReadable("splits by categories: encode them in a step before it")
    feature = features[split["float_feature_index"]]
    border = float(np.float32(split["border"]))
    return int(feature["flat_feature_index"]), border, feature["nan_value_treatment"] != "AsTrue"


def _oblivious(
    tree: Mapping[str, Any], features: Mapping[int, Any], scale: float, sums: int
) -> list[tuple[int, Tree]]:
    """Returns a tree with one split per level, for each sum."""
    splits = [_split(each, features) for each in tree["splits"]]
    values = np.array(tree["leaf_values"], dtype=np.float64).reshape(-1, sums) * scale
    inner, depth = 2 ** len(splits) - 1, len(splits)
    # Level by level: the children of node i are 2 i + 1 and 2 i + 2; the first split is the index's last bit.
    nodes = np.arange(inner)
    levels = np.floor(np.log2(nodes + 1)).astype(int)
    reversed_bits = [int(f"{leaf:0{depth}b}"[::-1], 2) if depth else 0 for leaf in range(inner + 1)]
    columns = [np.array([each[at] for each in splits]) for at in range(3)] if splits else [np.empty(0)] * 3
    feature, border, below = (column[levels] for column in columns)
    return [
        (k, _joined(2 * nodes + 1, 2 * nodes + 2, feature, border, below, values[reversed_bits, k]))
        for k in range(sums)
    ]


def _nested(
    tree: Mapping[str, Any], features: Mapping[int, Any], scale: float, sums: int
) -> list[tuple[int, Tree]]:
    """Returns a tree of nested splits, for each sum."""
    splits: Splits = []
    children: list[list[int]] = []
    leaves: list[Any] = []
    waiting: list[tuple[Mapping[str, Any], int, int]] = [(tree, -1, 0)]
    while waiting:
        node, parent, side = waiting.pop()
        if "split" in node:
            place = len(splits)
            splits.append(_split(node["split"], features))
            children.append([0, 0])
            waiting += [(node["left"], place, 0), (node["right"], place, 1)]
        else:
            place = ~len(leaves)
            leaves.append(node["value"])
        if parent >= 0:
            children[parent][side] = place
    values = np.array(leaves, dtype=np.float64).reshape(len(leaves), sums) * scale
    if not splits:
        return [(k, _constant(values[:, k])) for k in range(sums)]
    below = np.array(children)
    left, right = np.where(below < 0, len(splits) + ~below, below).T
    feature, border, nan_left = (np.array([each[at] for each in splits]) for at in range(3))
    return [(k, _joined(left, right, feature, border, nan_left, values[:, k])) for k in range(sums)]


READERS: Final[dict[tuple[str, str], Callable[[Any], Boosted]]] = {
    ("lightgbm.sklearn", "LGBMClassifier"): _lightgbm,
    ("lightgbm.sklearn", "LGBMRegressor"): _lightgbm,
    ("xgboost.sklearn", "XGBClassifier"): _xgboost,
    ("xgboost.sklearn", "XGBRegressor"): _xgboost,
    ("xgboost.sklearn", "XGBRFClassifier"): _xgboost,
    ("xgboost.sklearn", "XGBRFRegressor"): _xgboost,
    ("catboost.core", "CatBoostClassifier"): _catboost,
    ("catboost.core", "CatBoostRegressor"): _catboost,
}
