"""Outcomes: read, recorded, matched with predictions, and handed down as rows to train on."""
