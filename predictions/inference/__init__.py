"""Inference: reads request bodies, predicts with engines, writes answers and the log."""
