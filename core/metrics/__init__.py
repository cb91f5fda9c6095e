"""What is counted for Prometheus: the table of names, and this process's numbers. Without Django."""
