"""Rollups: the log counted by hour, version, column and bin."""
