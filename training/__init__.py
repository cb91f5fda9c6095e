"""What a model is: schema, pipeline, training, versions, activation. Knows nothing of the apps above it."""
