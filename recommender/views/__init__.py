"""The HTTP routes of movies, recommendations and the page."""
