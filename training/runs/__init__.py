"""Training runs: requested, their rows collected, fitted and evaluated."""
