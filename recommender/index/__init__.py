"""The index of similar movies, and the reasons for their similarity. No Django.

`query` defines questions and answers, `build` fits an index to a `catalogue_snapshot`, `engine` answers from
the index's bytes, `evaluation` measures its quality.
"""
