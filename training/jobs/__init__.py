"""Jobs: leases, the process of a job, polling, signs of life."""
