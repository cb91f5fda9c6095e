"""From a CSV to a file for `training/catalogue/`: survey, proposal, source, trial. No Django here."""
