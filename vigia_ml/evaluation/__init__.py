"""What a hold-out says of a version beyond its metrics: intervals, curves, errors, importances, slices.

Needs numpy alone: no Django here, and neither pandas nor scikit-learn, so that a web process can judge
labelled rows without them. Estimators and frames come as arguments. What is returned is plain JSON: undefined
is None.
"""

from vigia_ml.evaluation.outputs import Answers
from vigia_ml.evaluation.reports import HoldOut, Judged, compared, evaluated

__all__ = ["Answers", "HoldOut", "Judged", "compared", "evaluated"]
