"""The catalogue: movies are found, changed, imported and withdrawn."""
