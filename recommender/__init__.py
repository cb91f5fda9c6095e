"""The movie recommender: the catalogue and its interactions, the index over them, and what it answers."""
