"""Drift: reviews of the log against the reference profile of the version that answered."""
