"""Synthetic shots with exact layers, the training objective, and the metrics that compare layers with the truth."""
