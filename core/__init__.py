"""Modules that the Django apps share: environment, version, errors, metrics, background loops, ids."""
