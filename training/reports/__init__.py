"""What is told of versions: comparisons, cards, evaluations, reproductions."""
