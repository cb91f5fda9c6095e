"""What the API shows of predictions, drift and rollouts."""
