"""Converts final estimators. A regression's answer is (n, 1), a classification's (n, k)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn import ensemble, linear_model, naive_bayes, svm, tree
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from vigia_ml.engines.onnx_export import boosters, ensembles, kernels, terms, trees
from vigia_ml.engines.onnx_export.functions import apply
from vigia_ml.engines.onnx_export.graph import DOUBLE, WIDEST, Graph, Tensor
from vigia_ml.engines.onnx_export.listings import Design
from vigia_ml.engines.onnx_export.numbers import affine
from vigia_ml.engines.onnx_export.skl2onnx_fallback import foreign
from vigia_ml.engines.onnx_export.terms import Wide
from vigia_ml.engines.onnx_export.transformers import Data, chain
from vigia_ml.engines.onnx_export.trees import Tree
from vigia_ml.transformers.as_fitted import Relabelled

Writer = Callable[[Any, Data, Graph], Tensor]
# A larger sum may come from an infinite input, which scikit-learn rejects.
LARGEST_SUM = 1e300


def answer(model: Any, data: Data, graph: Graph) -> Tensor:
    """Writes the nodes of a fitted estimator: `predict_proba` where it has classes, else `predict`."""
    known = MODELS.get(type(model))
    if known is not None:
        return known(model, data, graph)
    if boosters.is_booster(model):
        result = boosters.boosted(model, graph.numbers(model, data), graph)
        is_binary = type(model).__name__.endswith("Classifier") and result.width == 1
        return _two(result.name, graph) if is_binary else result
    method = "predict_proba" if hasattr(model, "classes_") else "predict"
    return foreign(model, method, graph.numbers(model, data), graph)


def _pipeline(model: Pipeline, data: Data, graph: Graph) -> Tensor:
    *steps, (name, last) = model.steps
    data = chain(steps, data, graph)
    with graph.step(name):
        return answer(last, data, graph)


def _relabelled(model: Relabelled, data: Data, graph: Graph) -> Tensor:
    result = answer(model.estimator_, data, graph)
    if list(model.order) == list(range(result.width)):
        return result
    return Tensor(graph.gather(result.name, model.order), len(model.order), result.limit)


def _transformed(model: TransformedTargetRegressor, data: Data, graph: Graph) -> Tensor:
    result = answer(model.regressor_, data, graph)
    inverse = model.transformer_
    if isinstance(inverse, FunctionTransformer):
        return apply(model, inverse.inverse_func, result, graph)
    if isinstance(inverse, StandardScaler):
        mean = inverse.mean_ if inverse.with_mean else None
        return affine(result, graph, times=inverse.scale_, plus=mean)
    raise graph.cannot(model, f"transforms the target by {type(inverse).__name__}")


def _voting(model: ensemble.VotingClassifier | ensemble.VotingRegressor, data: Data, graph: Graph) -> Tensor:
    if isinstance(model, ensemble.VotingClassifier) and model.voting != "soft":
        raise graph.cannot(model, "votes without probabilities")
    names = [name for name, each in model.estimators if each != "drop"]
    weights = model._weights_not_none
    total = ""
    for at, (name, each) in enumerate(zip(names, model.estimators_, strict=True)):
        with graph.step(name):
            result = answer(each, data, graph)
        part = graph.node("Mul", result.name, graph.constant(weights[at])) if weights else result.name
        total = graph.node("Add", total, part) if total else part
    # The division comes last, as in numpy: where votes are even, a last bit decides.
    divisor = graph.constant(float(np.sum(weights)) if weights else float(len(names)))
    return Tensor(graph.node("Div", total, divisor), result.width, np.inf)


# -- linear --------------------------------------------------------------------------------------------


def _linear(model: Any, data: Data, graph: Graph) -> Tensor:
    """Writes ``x · coef + intercept``; rejects infinities as scikit-learn does."""
    if isinstance(data, Design):
        return data.times(model, graph)
    return _product(model, data, np.atleast_2d(model.coef_).T, model.intercept_, graph)


def _product(model: Any, data: Data, weights: Any, plus: Any, graph: Graph) -> Tensor:
    """Writes ``x · weights + plus`` of weights (p, k) and plus (k,)."""
    total = terms.times(model, data, np.asarray(weights, dtype=np.float64), graph)
    added = np.atleast_1d(np.asarray(plus, dtype=np.float64))
    limit = total.limit + float(np.abs(added).max())
    return Tensor(graph.node("Add", total.name, graph.constant(added)), total.width, limit)


def _logistic(model: linear_model.LogisticRegression, data: Data, graph: Graph) -> Tensor:
    scores = _linear(model, data, graph)
    if len(model.classes_) == 2:
        return _two(graph.node("Sigmoid", scores.name), graph)
    return Tensor(graph.node("Softmax", scores.name, axis=1), scores.width, 1.0)


def _kernel(model: Any, data: Data, graph: Graph) -> Tensor:
    if isinstance(model, svm.SVR | svm.NuSVR) and model.kernel == "sigmoid":
        return foreign(model, "predict", graph.numbers(model, data), graph)
    return kernels.machine(model, graph.numbers(model, data), graph)


def _combined(write: Callable[[Any, Any, Graph, Any], Tensor]) -> Writer:
    """Returns the writer of an estimator that combines others."""
    return lambda model, data, graph: write(model, data, graph, answer)


def _descent(model: linear_model.SGDClassifier, data: Data, graph: Graph) -> Tensor:
    if model.loss != "log_loss":
        return foreign(model, "predict_proba", graph.numbers(model, data), graph)
    scores = _linear(model, data, graph)
    each = graph.node("Sigmoid", scores.name)
    return _two(each, graph) if scores.width == 1 else _shares(each, scores.width, graph)


def _calibrated(model: CalibratedClassifierCV, data: Data, graph: Graph) -> Tensor:
    """Writes the mean of linear classifiers whose decisions a sigmoid turns into probabilities."""
    members = model.calibrated_classifiers_
    classes = len(model.classes_)
    if not all(_is_plain(each, classes) for each in members):
        return ensembles.calibrated(model, data, graph, answer)
    total = ""
    for each in members:
        scores = _linear(each.estimator, data, graph)
        slopes, offsets = ([-getattr(one, name) for one in each.calibrators] for name in ("a_", "b_"))
        calibrated = graph.node("Sigmoid", affine(scores, graph, times=slopes, plus=offsets).name)
        part = (
            _two(calibrated, graph).name
            if classes == 2
            else ensembles.shares_or_equal(calibrated, classes, graph)
        )
        total = graph.node("Add", total, part) if total else part
    return Tensor(graph.node("Div", total, graph.constant(float(len(members)))), classes, 1.0)


def _is_plain(member: Any, classes: int) -> bool:
    """Returns whether a calibrated classifier is linear, calibrated by sigmoids, and knows all classes."""
    linear = isinstance(member.estimator, LINEAR_CLASSIFIERS)
    return linear and member.method == "sigmoid" and len(member.estimator.classes_) == classes


def _shares(numbers: str, width: int, graph: Graph) -> Tensor:
    """Writes numbers (n, k), divided by their sum."""
    total = graph.node("ReduceSum", numbers, graph.constant([1], np.int64))
    return Tensor(graph.node("Div", numbers, total), width, 1.0)


def _multinomial_bayes(
    model: naive_bayes.MultinomialNB | naive_bayes.ComplementNB, data: Data, graph: Graph
) -> Tensor:
    is_complement = isinstance(model, naive_bayes.ComplementNB)
    prior = np.zeros(len(model.classes_)) if is_complement else model.class_log_prior_
    return _bayes(model, data, model.feature_log_prob_.T, prior, graph)


def _bernoulli_bayes(model: naive_bayes.BernoulliNB, data: Data, graph: Graph) -> Tensor:
    absent = np.log(1.0 - np.exp(model.feature_log_prob_))
    if model.binarize is not None:
        if isinstance(data, Wide) and model.binarize == 0.0:
            data = data.present(model, graph)
        else:
            numbers = graph.numbers(model, data)
            graph.must_be_exact(model, numbers)
            graph.refuse_beyond(numbers, WIDEST, nan=True)
            above = graph.node("Greater", numbers.name, graph.constant(float(model.binarize)))
            data = Tensor(graph.cast(above, DOUBLE), numbers.width, 1.0)
    weights = (model.feature_log_prob_ - absent).T
    return _bayes(model, data, weights, model.class_log_prior_ + absent.sum(axis=1), graph)


def _bayes(model: Any, data: Data, weights: Any, prior: Any, graph: Graph) -> Tensor:
    if len(model.classes_) < 2 or not np.isfinite(prior).all():
        raise graph.cannot(model, "knows a class without rows")
    scores = _product(model, data, weights, prior, graph)
    return Tensor(graph.node("Softmax", scores.name, axis=1), scores.width, 1.0)


def _two(positive: str, graph: Graph) -> Tensor:
    """Writes both columns, from the positive class's probability (n, 1)."""
    negative = graph.node("Sub", graph.constant(1.0), positive)
    return graph.concat([Tensor(negative, 1, 1.0), Tensor(positive, 1, 1.0)])


# -- trees ---------------------------------------------------------------------------------------------


def _forest(model: Any, data: Data, graph: Graph) -> Tensor:
    members = [each.tree_ for each in getattr(model, "estimators_", [model])]
    if members[0].n_outputs != 1:
        raise graph.cannot(model, "predicts several targets")
    # Trees whose criterion supports missing values have a side for them; other trees reject them.
    allows = model.__sklearn_tags__().input_tags.allow_nan
    numbers = graph.numbers(model, data)
    graph.must_be_exact(model, numbers)
    rounded = trees.rounded(numbers, graph, nan=allows)
    values = [member.value[:, 0, :] for member in members]
    if hasattr(model, "classes_"):
        if len(model.classes_) == 2:
            return _two(_mean(rounded, members, [value[:, 1] for value in values], graph).name, graph)
        built = [Tree.of(member, value[:, 0]) for member, value in zip(members, values, strict=True)]
        return trees.averaged(rounded, built, values, graph)
    return _mean(rounded, members, [value[:, 0] for value in values], graph)


def _mean(
    data: Tensor, members: Sequence[Any], leaves: Sequence[NDArray[np.float64]], graph: Graph
) -> Tensor:
    built = [(0, Tree.of(member, each)) for member, each in zip(members, leaves, strict=True)]
    total = trees.summed(data, built, np.zeros(1), graph)
    # The division comes last, as in scikit-learn: where votes are even, a last bit decides.
    name = graph.node("Div", total.name, graph.constant(float(len(members))))
    return Tensor(name, 1, total.limit / len(members))


def _gradient_boosting(model: Any, data: Data, graph: Graph) -> Tensor:
    if not (model.init_ == "zero" or isinstance(model.init_, (DummyClassifier, DummyRegressor))):
        raise graph.cannot(model, f"starts from another estimator ({type(model.init_).__name__})")
    numbers = graph.numbers(model, data)
    graph.must_be_exact(model, numbers)
    rounded = trees.rounded(numbers, graph, nan=False)
    base = model._raw_predict_init(np.zeros((1, rounded.width), dtype=np.float32))[0]
    built = [
        (target, Tree.of(each.tree_, each.tree_.value[:, 0, 0] * model.learning_rate))
        for stage in model.estimators_
        for target, each in enumerate(stage)
    ]
    raw = trees.summed(rounded, built, base, graph)
    return _linked(model, raw, graph)


def _histogram_boosting(model: Any, data: Data, graph: Graph) -> Tensor:
    predictors = [(target, each) for stage in model._predictors for target, each in enumerate(stage)]
    if any(each.nodes["is_categorical"].any() for _, each in predictors):
        raise graph.cannot(model, "splits by sets of categories: encode them in a step before it")
    if model._preprocessor is not None:
        raise graph.cannot(model, "encodes categories itself: encode them in a step before it")
    built = [(target, Tree.of_histogram(each)) for target, each in predictors]
    base = np.asarray(model._baseline_prediction, dtype=np.float64).ravel()
    numbers = graph.numbers(model, data)
    graph.must_be_exact(model, numbers)
    return _linked(model, trees.summed(numbers, built, base, graph), graph)


def _linked(model: Any, raw: Tensor, graph: Graph) -> Tensor:
    """Writes the link function that turns a boosting's sum into its answer."""
    loss, link = type(model._loss).__name__, type(model._loss.link).__name__
    is_regression = not hasattr(model, "classes_")
    if is_regression and link == "IdentityLink":
        return raw
    if is_regression and link == "LogLink":
        return Tensor(graph.node("Exp", raw.name), 1, np.inf)
    if loss == "HalfBinomialLoss":
        return _two(graph.node("Sigmoid", raw.name), graph)
    if loss == "ExponentialLoss":
        return _two(graph.node("Sigmoid", graph.node("Add", raw.name, raw.name)), graph)
    if loss == "HalfMultinomialLoss":
        return Tensor(graph.node("Softmax", raw.name, axis=1), raw.width, 1.0)
    raise graph.cannot(model, f"has the loss {loss}")


LINEAR_CLASSIFIERS: Final = (
    svm.LinearSVC,
    linear_model.LogisticRegression,
    linear_model.RidgeClassifier,
    linear_model.SGDClassifier,
)
MODELS: Final[dict[type, Writer]] = {
    Pipeline: _pipeline,
    Relabelled: _relabelled,
    TransformedTargetRegressor: _transformed,
    **dict.fromkeys(
        (GridSearchCV, RandomizedSearchCV),
        lambda model, data, graph: answer(model.best_estimator_, data, graph),
    ),
    **dict.fromkeys((ensemble.VotingClassifier, ensemble.VotingRegressor), _voting),
    **dict.fromkeys((linear_model.LinearRegression, linear_model.Ridge, linear_model.RidgeCV), _linear),
    **dict.fromkeys((linear_model.Lasso, linear_model.LassoCV), _linear),
    **dict.fromkeys((linear_model.ElasticNet, linear_model.ElasticNetCV), _linear),
    **dict.fromkeys((linear_model.LogisticRegression, linear_model.LogisticRegressionCV), _logistic),
    LinearDiscriminantAnalysis: _logistic,
    **dict.fromkeys((svm.SVR, svm.NuSVR, KernelRidge), _kernel),
    **dict.fromkeys((ensemble.StackingClassifier, ensemble.StackingRegressor), _combined(ensembles.stacking)),
    **dict.fromkeys((ensemble.BaggingClassifier, ensemble.BaggingRegressor), _combined(ensembles.bagging)),
    OneVsRestClassifier: _combined(ensembles.one_versus_rest),
    CalibratedClassifierCV: _calibrated,
    linear_model.SGDClassifier: _descent,
    linear_model.SGDRegressor: _linear,
    **dict.fromkeys((naive_bayes.MultinomialNB, naive_bayes.ComplementNB), _multinomial_bayes),
    naive_bayes.BernoulliNB: _bernoulli_bayes,
    **dict.fromkeys((ensemble.RandomForestClassifier, ensemble.RandomForestRegressor), _forest),
    **dict.fromkeys((ensemble.ExtraTreesClassifier, ensemble.ExtraTreesRegressor), _forest),
    **dict.fromkeys((tree.DecisionTreeClassifier, tree.DecisionTreeRegressor), _forest),
    **dict.fromkeys((tree.ExtraTreeClassifier, tree.ExtraTreeRegressor), _forest),
    ensemble.GradientBoostingClassifier: _gradient_boosting,
    ensemble.GradientBoostingRegressor: _gradient_boosting,
    ensemble.HistGradientBoostingClassifier: _histogram_boosting,
    ensemble.HistGradientBoostingRegressor: _histogram_boosting,
}
