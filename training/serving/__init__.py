"""Serving: the engines that a process has loaded, and the routing of clients to versions."""
