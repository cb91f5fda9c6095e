"""The registry: models and versions are looked up, activated, rolled out and pruned."""
