"""Moved to `vigia_ml.transformers.plain`."""

from training.deprecated import forward

__getattr__ = forward(__name__, "vigia_ml.transformers.plain")
