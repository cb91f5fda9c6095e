"""Recommendations: requests are read, answered from the index, and logged."""
