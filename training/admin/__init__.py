"""The registry in the admin; the pages call services."""

from training.admin import activations, datasets, events, registered_models, runs, versions

__all__ = ["activations", "datasets", "events", "registered_models", "runs", "versions"]
