"""What the API shows of movies and recommendations."""
