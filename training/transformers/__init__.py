"""Transformers of this installation, one module each; the library's are in `vigia_ml.transformers`."""
