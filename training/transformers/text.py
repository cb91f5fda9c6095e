"""Moved to `vigia_ml.transformers.text`."""

from training.deprecated import forward

__getattr__ = forward(__name__, "vigia_ml.transformers.text")
