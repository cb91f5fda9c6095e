"""Quality: metrics of predictions with outcomes, by hour, with intervals."""
