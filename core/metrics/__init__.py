"""The table of Prometheus metrics and the counters of this process. Without Django."""
