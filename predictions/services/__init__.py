"""What can be asked of the log."""
