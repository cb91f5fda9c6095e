"""Jobs: leases, the process of a job, polling, heartbeats."""
