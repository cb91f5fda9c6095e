"""The catalogue: finding, changing, importing and withdrawing movies."""
