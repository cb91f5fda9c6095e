"""HTTP views of movies, recommendations and the movie recommender's page."""
