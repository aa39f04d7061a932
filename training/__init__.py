"""Synthetic shots with exact layers and a user's own clips, the training on them, and the metrics that compare layers
with the truth."""
