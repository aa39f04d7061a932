"""Learning the layers, and telling how well they were learned: the training objective and the field's metrics."""
