"""Pixels: colour, layer encodings, sizes, clips on disk, contact sheets. Knows nothing of ComfyUI or the network."""
