"""Synthetic shots with exact layers, the trainer, and the metrics that compare layers with the truth."""
