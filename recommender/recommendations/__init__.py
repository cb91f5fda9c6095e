"""Recommendations: parsing requests, querying the index, and logging responses."""
