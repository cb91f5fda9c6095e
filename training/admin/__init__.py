"""The registry in the admin: a thin entry point that calls services."""

from training.admin import activations, datasets, registered_models, runs, versions

__all__ = ["activations", "datasets", "registered_models", "runs", "versions"]
