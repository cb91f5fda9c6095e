"""Training of a pipeline: frames, splits, the hyper-parameter search, Parquet."""
