"""Outcomes: parsing, recording, matching with predictions, and rows for training."""
