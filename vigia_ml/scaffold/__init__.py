"""Writes a file for `training/catalogue/` from a CSV: survey, proposal, source, trial. No Django here."""
