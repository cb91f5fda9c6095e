"""Evaluation of a version on its hold-out: intervals, curves, errors, importances, slices.

The reports need numpy alone, so that a web process can judge labelled rows: no Django here, and no pandas or
scikit-learn. Estimators and frames are arguments. Results are JSON; an undefined number is None.
"""

from vigia_ml.evaluation.outputs import Answers
from vigia_ml.evaluation.reports import HoldOut, Judged, compared, evaluated

__all__ = ["Answers", "HoldOut", "Judged", "compared", "evaluated"]
