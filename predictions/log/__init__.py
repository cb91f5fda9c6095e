"""The prediction log: writing, partitions, queries, search and export."""
