"""Drift and expected quality from counted bins: statistics, verdicts, histograms. No Django here."""
