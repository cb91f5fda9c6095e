"""`/metrics`: from each process's numbers and from the database to what Prometheus reads."""
