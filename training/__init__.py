"""The learning loop: data sets, models, training, registry."""
