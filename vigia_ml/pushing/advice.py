"""Advice for steps that do not compile: which would. No Django here."""

from __future__ import annotations

import re
from typing import Any, Final

from vigia_ml.engines.onnx_export.compile import NotConvertible
from vigia_ml.engines.parity import Parity
from vigia_ml.pushing.errors import NotPushable
from vigia_ml.pushing.estimators import final

DIFFERS: Final = (
    "this is a fault of the compiler: report the pipeline's steps, and try another estimator meanwhile"
)
_STEP: Final = re.compile(r"^(?:step (?P<path>.+?) \((?P<inner>\w+)\)|(?P<outer>[A-Z]\w+)) ")
_TREES: Final = "RandomForest, GradientBoosting and HistGradientBoosting compile"
_NEIGHBOURS: Final = f"its answers need all training rows at every request; {_TREES}"
_BY_STEP: Final = {
    "AdaBoostClassifier": f"its votes jump where trees disagree; {_TREES}",
    "AdaBoostRegressor": f"its median jumps where trees disagree; {_TREES}",
    "BaggingClassifier": "RandomForestClassifier samples columns as well (max_features), and compiles",
    "BaggingRegressor": "RandomForestRegressor samples columns as well (max_features), and compiles",
    "CalibratedClassifierCV": (
        'method="sigmoid" around LogisticRegression, LinearSVC, RidgeClassifier, SGDClassifier or a forest '
        "compiles"
    ),
    "ColumnTransformer": "give text columns to OneHotEncoder, OrdinalEncoder or TargetEncoder",
    "DictVectorizer": "fit on the frame itself, with OneHotEncoder in a ColumnTransformer",
    "DummyClassifier": "the service computes this baseline for every model by itself",
    "DummyRegressor": "the service computes this baseline for every model by itself",
    "GaussianProcessClassifier": f"MLPClassifier compiles; {_TREES}",
    "GaussianProcessRegressor": "SVR and KernelRidge compile",
    "HashingVectorizer": "TfidfVectorizer and CountVectorizer compile",
    "FeatureHasher": "OneHotEncoder(handle_unknown='ignore', max_categories=…) compiles",
    "IterativeImputer": "SimpleImputer compiles, and HistGradientBoosting takes missing values as they are",
    "IsotonicRegression": f"{_TREES}",
    "KBinsDiscretizer": "KBinsDiscretizer with dtype=None or float64 compiles",
    "KernelPCA": "PCA compiles; SVC and SVR compute kernels themselves",
    "KMeans": "PCA, KBinsDiscretizer and the estimators with trees compile",
    "KNNImputer": "SimpleImputer compiles, and HistGradientBoosting takes missing values as they are",
    "KNeighborsClassifier": _NEIGHBOURS,
    "KNeighborsRegressor": _NEIGHBOURS,
    "RadiusNeighborsClassifier": _NEIGHBOURS,
    "RadiusNeighborsRegressor": _NEIGHBOURS,
    "LabelPropagation": _NEIGHBOURS,
    "LabelSpreading": _NEIGHBOURS,
    "MissingIndicator": "SimpleImputer(add_indicator=True) compiles",
    "NMF": "PCA and TruncatedSVD compile",
    "Nystroem": "SVC, SVR and KernelRidge compute kernels themselves, and compile",
    "QuantileTransformer": "PowerTransformer and KBinsDiscretizer compile; trees need no scaling",
    "RBFSampler": "SVC, SVR and KernelRidge compute kernels themselves, and compile",
    "SGDClassifier": 'loss="log_loss" compiles',
    "SplineTransformer": "PolynomialFeatures and KBinsDiscretizer compile; trees need neither",
    "StackingClassifier": "a linear final_estimator over estimators with predict_proba compiles",
    "StackingRegressor": "a linear final_estimator compiles",
    "TransformedTargetRegressor": (
        "func=numpy.log1p with inverse_func=numpy.expm1, and transformer=StandardScaler() compile"
    ),
    "VotingClassifier": 'voting="soft" compiles',
}
_BY_REASON: Final = (
    (
        r"splits by sets of categories|encodes categories itself",
        (
            "encode the categories in a step before it, e.g. ColumnTransformer([('cat', OrdinalEncoder("
            "handle_unknown='use_encoded_value', unknown_value=-1), […])], remainder='passthrough')"
        ),
    ),
    (
        r" applies |calls its function with arguments",
        (
            "a step with a function of numpy, without arguments, compiles: log1p, log, sqrt, square, exp, "
            "expm1 or abs; compute other columns before you fit, and send them as columns"
        ),
    ),
    (
        r"takes .+ as text in a way",
        (
            "encode it before: OneHotEncoder(handle_unknown='ignore'), OrdinalEncoder or TargetEncoder for "
            "categories, TfidfVectorizer or CountVectorizer for texts"
        ),
    ),
    (
        r"takes texts and numbers together",
        "give the columns of texts and the columns of numbers to steps of their own in a ColumnTransformer",
    ),
    (r"categories that are texts", "convert the column before you fit, e.g. X[…] = X[…].astype('float64')"),
    (
        r"compares numbers that an earlier step computes with rounding",
        "trees need no scaling: leave that step out",
    ),
    (
        r"does not treat all unknown texts",
        "declare the levels: overrides={'…': {'levels': (…)}}",
    ),
    (
        r"more levels than a version stores",
        "use TargetEncoder or OneHotEncoder(max_categories=…) on fewer levels, or leave the column out",
    ),
)
_KERNEL: Final = (
    "SVC(probability=True) compiles, and a CalibratedClassifierCV of another model, e.g. of LinearSVC"
)
_BOUNDS: Final = (
    "the service would accept numbers up to 3.4e38 there: bounds=True rejects numbers far outside "
    "the training range, overrides={'…': {'minimum': 0, 'maximum': 100}} those outside your own bounds"
)


def not_convertible(cannot: NotConvertible) -> NotPushable:
    """Returns the error for a pipeline that does not compile, with the step, the reason and advice."""
    message = str(cannot)
    found = _STEP.match(message)
    kind = (found["inner"] or found["outer"]) if found else ""
    reasons = (words for pattern, words in _BY_REASON if re.search(pattern, message))
    advice = next(reasons, _BY_STEP.get(kind, ""))
    message = message.replace("step model / ", "step ").replace(
        ", and skl2onnx may round the numbers it compares", ""
    )
    step = f"{found['path'].removeprefix('model / ')} ({kind})" if found and found["path"] else kind
    return NotPushable(message, step=step, advice=advice)


def refused(reason: str, pipeline: Any) -> NotPushable:
    """Returns the error for a graph that `vigia_ml.engines.graph_check` refuses."""
    kind = type(final(pipeline)).__name__
    advice = _KERNEL if "SVMClassifier" in reason else _BY_STEP.get(kind, "")
    return NotPushable(f"the server would refuse the compiled model: {reason}", step=kind, advice=advice)


def differs(parity: Parity) -> NotPushable:
    """Returns the error for a compiled pipeline whose answers differ."""
    reason, _, bounds = parity.reason.partition(": declare bounds")
    message = f"the compiled model does not answer as the pipeline does: {reason}"
    return NotPushable(message, advice=_BOUNDS if bounds else DIFFERS)
