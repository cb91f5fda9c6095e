"""The registry: lookup, activation, rollout and pruning of models and versions."""
