"""Models and their versions: training runs, registry, activation, serving. Imports no app above it."""

from training import deprecated

deprecated.install()
