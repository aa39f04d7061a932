"""Files into weights: what a file is, whether it fits, and the tensors it holds. `tiny/` holds the bundled models."""
