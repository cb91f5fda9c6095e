"""From rows to a fitted pipeline: frames, splits, the search for hyper-parameters, Parquet."""
