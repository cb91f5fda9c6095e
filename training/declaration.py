"""Moved to `vigia_ml`; files that `startmodel` wrote before still import it from here."""

from training.deprecated import forward

__getattr__ = forward(__name__, "vigia_ml", "vigia_ml.declaration")
