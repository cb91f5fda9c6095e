"""Batches: requests, preparation, chunks, scoring, results, retention."""
