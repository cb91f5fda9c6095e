"""What can be done with the catalogue and its index; no HTTP here."""
