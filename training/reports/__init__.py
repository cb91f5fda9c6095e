"""Reports on versions: comparisons, model cards, evaluations, reproductions."""
