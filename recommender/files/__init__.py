"""Readers of files of movies and interactions: they stream rows and report bad rows by line. No Django."""
