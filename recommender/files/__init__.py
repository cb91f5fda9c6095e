"""Readers of files of movies and interactions: they stream rows and report bad rows by line. No Django."""

from recommender.files.tabular import Chunk, Layout, Rows, open_rows

__all__ = ["Chunk", "Layout", "Rows", "open_rows"]
