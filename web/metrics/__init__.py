"""`/metrics`: the counters of all processes and the figures of the database, in Prometheus' formats."""
