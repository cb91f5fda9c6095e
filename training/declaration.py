"""The old place of `vigia_ml.declaration`; files that an older `startmodel` wrote import it from here."""

from training.deprecated import forward

__getattr__ = forward(__name__, "vigia_ml", "vigia_ml.declaration")
