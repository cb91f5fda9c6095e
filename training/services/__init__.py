"""What can be done, whoever asks: synchronous, knows no HTTP, one mutation in one place."""
