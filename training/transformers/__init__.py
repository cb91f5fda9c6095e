"""Transformers of one's own, one module each; the library's are in `vigia_ml.transformers`."""
