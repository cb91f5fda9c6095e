"""What happens to the catalogue and the interactions; knows no HTTP."""
