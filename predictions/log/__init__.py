"""The prediction log: written, partitioned, searched and exported."""
