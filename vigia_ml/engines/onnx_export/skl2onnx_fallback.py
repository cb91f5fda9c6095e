"""Converts some continuous steps of scikit-learn with skl2onnx, one step at a time.

skl2onnx computes in single precision where an operator has no double. The parity check detects digits that a
continuous step loses. A step that compares (with a threshold, an edge, a category, a neighbour) may differ
for values outside the parity check's rows, so other modules compile it in double, or it is not compiled.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from sklearn import (
    calibration,
    cross_decomposition,
    decomposition,
    discriminant_analysis,
    ensemble,
    gaussian_process,
    linear_model,
    naive_bayes,
    neural_network,
    pipeline,
    preprocessing,
    random_projection,
    svm,
)

from vigia_ml.engines.edges import held_steps
from vigia_ml.engines.onnx_export.graph import DOUBLE, FLOAT, ML, OPSET, WIDEST, Graph, Tensor
from vigia_ml.schema.columns import LARGEST

log = logging.getLogger(__name__)
ML_OPSET_OF_CONVERTERS = 3


# The probabilities of these classifiers are continuous.
CONTINUOUS: Final = frozenset(
    getattr(module, name)
    for module, names in {
        calibration: "CalibratedClassifierCV",
        cross_decomposition: "PLSRegression",
        decomposition: "IncrementalPCA PCA TruncatedSVD",
        discriminant_analysis: "LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis",
        ensemble: "StackingClassifier StackingRegressor",
        gaussian_process: "GaussianProcessClassifier GaussianProcessRegressor",
        linear_model: """
            ARDRegression BayesianRidge ElasticNet ElasticNetCV GammaRegressor HuberRegressor Lars LarsCV
            Lasso LassoCV LassoLars LassoLarsCV LassoLarsIC LinearRegression LogisticRegression
            LogisticRegressionCV OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV PoissonRegressor
            QuantileRegressor RANSACRegressor Ridge RidgeCV SGDClassifier SGDRegressor TheilSenRegressor
            TweedieRegressor""",
        naive_bayes: "ComplementNB GaussianNB MultinomialNB",
        neural_network: "MLPClassifier MLPRegressor",
        pipeline: "Pipeline",
        preprocessing: """
            LabelBinarizer LabelEncoder MaxAbsScaler MinMaxScaler PolynomialFeatures PowerTransformer
            RobustScaler StandardScaler""",
        random_projection: "GaussianRandomProjection",
        svm: "LinearSVC LinearSVR NuSVC NuSVR SVC SVR",
    }.items()
    for name in names.split()
)
# Parameters that may cause jumps: step -> (name, values without jumps).
WITHOUT_JUMPS: Final[dict[type, tuple[str, tuple[str, ...]]]] = {
    calibration.CalibratedClassifierCV: ("method", ("sigmoid",)),
    linear_model.SGDClassifier: ("loss", ("log_loss",)),
}


def foreign(step: Any, method: str, data: Tensor, graph: Graph) -> Tensor:
    """Writes skl2onnx's nodes for a fitted continuous step on numbers.

    method : the converted method of the step: ``transform``, ``predict`` or ``predict_proba``.

    The nodes are double where converter and runtime support it, else single. Either way digits may be lost
    inside; the parity check, which every compiled pipeline has to pass, decides whether that matters.
    """
    if not is_continuous(step):
        raise graph.cannot(
            step,
            "is not supported by the compiler, and skl2onnx may round the numbers it compares",
        )
    for kind in (DOUBLE, FLOAT):
        model = _converted(step, data.width, kind)
        if model is not None:
            break
    else:
        raise graph.cannot(step, "is not supported by the compiler or by skl2onnx")
    if not hasattr(step, method):
        raise graph.cannot(step, f"has no {method}")
    graph.refuse_beyond(data, WIDEST if kind == DOUBLE else LARGEST)
    source = data.name if kind == DOUBLE else graph.cast(data.name, FLOAT)
    output = model.graph.output[-1]  # a classifier's outputs are label, probabilities
    name = graph.inline(model, source, output.name)
    if output.type.tensor_type.elem_type != DOUBLE:
        name = graph.cast(name, DOUBLE)
    if kind == FLOAT or _rounds(model):
        graph.mark_rough(name)
    one_row = getattr(step, method)(np.zeros((1, data.width)))
    return Tensor(name, int(np.prod(one_row.shape[1:])), np.inf)


def is_continuous(step: Any) -> bool:
    """Returns whether the step is known to be continuous.

    The types of the step and of all fitted steps in it are in `CONTINUOUS`.
    """
    if type(step) not in CONTINUOUS:
        return False
    name, smooth = WITHOUT_JUMPS.get(type(step), ("", ()))
    if name and getattr(step, name) not in smooth:
        return False
    return all(is_continuous(each) for each in held_steps(step))


def _rounds(model: onnx.ModelProto) -> bool:
    """Returns whether anything in a converted step is computed in single precision."""
    nodes = model.graph.node
    return (
        any(node.domain == ML for node in nodes)
        or any(each.data_type == FLOAT for each in model.graph.initializer)
        or any(each.name == "to" and each.i == FLOAT for node in nodes for each in node.attribute)
    )


def _converted(step: Any, width: int, kind: int) -> onnx.ModelProto | None:
    """Returns skl2onnx's model of a step, or None where ONNX Runtime does not accept it."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    source = (DoubleTensorType if kind == DOUBLE else FloatTensorType)([None, width])
    try:
        model: onnx.ModelProto = convert_sklearn(
            step,
            initial_types=[("given", source)],
            target_opset={"": OPSET, ML: ML_OPSET_OF_CONVERTERS},
            options={id(step): {"zipmap": False}} if hasattr(step, "classes_") else None,
        )
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:  # converters may raise anything
        log.info("skl2onnx on %s: %r", type(step).__name__, error)
        return None
    return model
