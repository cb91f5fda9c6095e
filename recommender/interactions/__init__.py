"""Interactions: recorded, imported, and matched with recommendations."""
