"""The movie recommender: the catalogue, its interactions, the index over both, and the recommendations."""
