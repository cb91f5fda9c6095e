"""Micro-benchmarks of the steps of an answer: `make bench-micro`."""
