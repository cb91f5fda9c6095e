"""Interactions: recording, importing, and matching with recommendations."""
