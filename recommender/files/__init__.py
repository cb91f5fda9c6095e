"""Files of movies and of interactions: read as a stream, every bad row named by its line. No Django."""

from recommender.files.tabular import Chunk, Layout, Rows, open_rows

__all__ = ["Chunk", "Layout", "Rows", "open_rows"]
