"""Drift: counts of the log beside the reference profile of the version that answered. No Django here."""
