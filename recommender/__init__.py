"""The movie recommender's room. It will stand on `predictions` and `training`; nothing is in it yet."""
